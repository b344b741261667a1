-- What the release before took of a device's memory, so that the next one is compared with it on the same device.
-- Append-only: a migration that was applied somewhere is never edited; write the next one.

-- The device's probe of `previous` (ProbeEvidence, JSON), noted when this rollout's release was assigned.
ALTER TABLE rollout_devices ADD COLUMN previous_probe TEXT;
