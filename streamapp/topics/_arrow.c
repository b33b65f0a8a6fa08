/* A finished batch to the Arrow C data interface: who takes the array frees the memory, without a copy of it. */
#include <stdlib.h>

#include "_events.h"

struct batch {
    struct ArrowArray column[EVENTS_COLUMNS], *columns[EVENTS_COLUMNS];
    const void *no_validity[1];
};

static void release_column(struct ArrowArray *array) {
    for (int64_t n = 0; n < array->n_buffers; n++)
        free((void *)(uintptr_t)array->buffers[n]);
    free(array->buffers);
    array->release = NULL;
}

static void release_batch(struct ArrowArray *array) {
    for (int64_t n = 0; n < array->n_children; n++) /* a child that was moved out is its new owner's */
        if (array->children[n]->release)
            array->children[n]->release(array->children[n]);
    free(array->private_data);
    array->release = NULL;
}

static int export_column(struct events_column *column, int64_t rows, struct ArrowArray *array) {
    int64_t n = 0;
    const void **buffers = malloc(3 * sizeof *buffers); /* of its own: the consumer may keep this column alone */
    if (!buffers)
        return -1;
    if (!column->nulls) {
        free(column->valid);
        column->valid = NULL;
    }
    buffers[n++] = column->valid;
    if (column->ends)
        buffers[n++] = column->ends;
    buffers[n++] = column->data;
    *array = (struct ArrowArray){
        .length = rows, .null_count = column->nulls, .n_buffers = n, .buffers = buffers, .release = release_column};
    *column = (struct events_column){0};
    return 0;
}

int events_export(struct events *events, struct ArrowArray *array) {
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return -1;
    *array = (struct ArrowArray){.length = (int64_t)events->rows,
                                 .n_buffers = 1,
                                 .n_children = EVENTS_COLUMNS,
                                 .buffers = batch->no_validity,
                                 .children = batch->columns,
                                 .release = release_batch,
                                 .private_data = batch};
    for (int n = 0; n < EVENTS_COLUMNS; n++)
        batch->columns[n] = &batch->column[n];
    for (int n = 0; n < EVENTS_COLUMNS; n++) {
        if (export_column(&events->column[n], array->length, &batch->column[n])) {
            release_batch(array);
            return -1;
        }
    }
    return 0;
}
