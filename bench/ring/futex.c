/* What the kernel alone takes from one process that writes a word to another that sleeps on it.
 *
 *     futex COUNT RATE
 *
 * prints nanoseconds from before the write to after the wait, one a line, then the share of a core that the sleeper
 * took. No ring, no Python, no row: the floor under whatever wakes by a futex on this machine.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
    _Atomic uint32_t word;
    _Atomic int64_t sent_ns;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void futex(struct shared *shared, int operation, uint32_t value) {
    syscall(SYS_futex, &shared->word, operation, value, NULL, NULL, 0);
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void sleeper(struct shared *shared, uint32_t count) {
    int64_t *ages = malloc(count * sizeof *ages), started_ns = now_ns();
    for (uint32_t seen = 0; seen < count;) {
        futex(shared, FUTEX_WAIT, seen);
        uint32_t found = atomic_load(&shared->word);
        if (found == seen)
            continue;
        int64_t age = now_ns() - atomic_load(&shared->sent_ns);
        while (seen < found)
            ages[seen++] = age;
    }
    double spent_s = (double)(now_ns() - started_ns) / 1e9;
    for (uint32_t i = 0; i < count; i++)
        printf("%lld\n", (long long)ages[i]);
    printf("%f\n", cpu_s() / spent_s);
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    uint32_t count = (uint32_t)atol(argv[1]);
    int64_t every_ns = 1000000000LL / atol(argv[2]);
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    pid_t child = fork();
    if (child == 0)
        sleeper(shared, count);
    int64_t next_ns = now_ns() + 200000000; /* the other has begun to sleep */
    for (uint32_t i = 0; i < count; i++, next_ns += every_ns) {
        struct timespec until = {next_ns / 1000000000LL, next_ns % 1000000000LL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        atomic_store(&shared->sent_ns, now_ns());
        atomic_fetch_add(&shared->word, 1);
        futex(shared, FUTEX_WAKE, 1);
    }
    int status;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status);
}
