-- The caller's span, from its `traceparent`: 16 bytes of trace, 8 of span, 1 of flags; NULL: it sent none.
ALTER TABLE requests ADD COLUMN trace BLOB;
