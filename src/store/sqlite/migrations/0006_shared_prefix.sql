-- How many characters the user messages of a flight's pilots have in common at their beginning; NULL: unknown.
ALTER TABLE flights ADD COLUMN shared_prefix INTEGER;
