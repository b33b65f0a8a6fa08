/* Offsets and constants of streamapp_ring.h by name, exported so that tests can hold layout.py to them. */
#ifndef STREAMAPP_RING_LAYOUT_TABLE_H
#define STREAMAPP_RING_LAYOUT_TABLE_H

#include "streamapp_ring.h"

#define FIELD(type, field) {#type "." #field, offsetof(struct evring_##type, field)}
#define SIZE(type) {#type, sizeof(struct evring_##type)}

static const struct {
    const char *name;
    unsigned long long value;
} LAYOUT[] = {
    {"layout_version", EVRING_LAYOUT_VERSION}, {"byte_order", EVRING_BYTE_ORDER},
    {"header_bytes", EVRING_HEADER_BYTES}, {"desc_off", EVRING_DESC_OFF}, {"desc_max", EVRING_DESC_MAX},
    {"sources_off", EVRING_SOURCES_OFF}, {"sources_max", EVRING_SOURCES_MAX}, {"record_off", EVRING_RECORD_OFF},
    {"record_stride", EVRING_RECORD_STRIDE}, {"page_bytes", EVRING_PAGE_BYTES},
    {"columns_max", EVRING_COLUMNS_MAX}, {"watch_ns", EVRING_WATCH_NS},
    {"source_none", EVRING_SOURCE_NONE}, {"offset_bits", EVRING_OFFSET_BITS}, {"source_used", EVRING_SOURCE_USED},
    {"state_init", EVRING_INIT}, {"state_live", EVRING_LIVE}, {"state_recovering", EVRING_RECOVERING},
    {"state_retired", EVRING_RETIRED}, {"flag_crc", EVRING_FLAG_CRC}, {"flag_huge", EVRING_FLAG_HUGE},
    {"flag_mirrorable", EVRING_FLAG_MIRRORABLE}, {"desc_record", EVRING_DESC_RECORD},
    {"desc_column", EVRING_DESC_COLUMN}, {"desc_enum", EVRING_DESC_ENUM}, {"row_embedded", EVRING_ROW_EMBEDDED},
    {"row_failed", EVRING_ROW_FAILED}, {"row_truncated", EVRING_ROW_TRUNCATED},
    SIZE(header), SIZE(descriptor), SIZE(source), SIZE(record),
    FIELD(header, magic), FIELD(header, layout_version), FIELD(header, byte_order), FIELD(header, capacity),
    FIELD(header, file_bytes), FIELD(header, record_stride), FIELD(header, n_columns), FIELD(header, schema_hash),
    FIELD(header, desc_off), FIELD(header, desc_len), FIELD(header, flags), FIELD(header, record_off),
    FIELD(header, ring_uuid), FIELD(header, boot_id), FIELD(header, created_unix_ns),
    FIELD(header, clock_offset_ns), FIELD(header, sources_off), FIELD(header, sources_max), FIELD(header, base),
    FIELD(header, epoch), FIELD(header, state), FIELD(header, writer_pid), FIELD(header, writer_start_unix_ns),
    FIELD(header, claim), FIELD(header, head), FIELD(header, wake), FIELD(header, watch_ns),
    FIELD(header, heartbeat_mono_ns),
    FIELD(header, frames), FIELD(header, void_frames), FIELD(header, recoveries), FIELD(header, last_commit_unix_us),
    FIELD(descriptor, name), FIELD(descriptor, dtype), FIELD(descriptor, ndim), FIELD(descriptor, shape),
    FIELD(descriptor, flags), FIELD(descriptor, offset), FIELD(descriptor, stride),
    FIELD(source, topic), FIELD(source, partition), FIELD(source, flags), FIELD(source, next_source_offset),
    FIELD(source, next_enriched_offset),
    FIELD(record, stamp), FIELD(record, frame_id), FIELD(record, timestamp_us), FIELD(record, conversation_hash),
    FIELD(record, ingest_us), FIELD(record, source_offset), FIELD(record, delta_time), FIELD(record, duration_ms),
    FIELD(record, velocity), FIELD(record, interrupt), FIELD(record, fill_rate), FIELD(record, sentiment),
    FIELD(record, confidence), FIELD(record, spin), FIELD(record, attractor_pull), FIELD(record, workflow_node),
    FIELD(record, case_status), FIELD(record, lead_status), FIELD(record, actor_type), FIELD(record, intent_id),
    FIELD(record, dim_used), FIELD(record, dtype_code), FIELD(record, flags), FIELD(record, presence),
    FIELD(record, epoch),
};

#endif
