-- The provider's id of the background response that answers a request (engine/background.rs), once it is known.
ALTER TABLE requests ADD COLUMN live_response TEXT;
