-- The first report that was taken of the present start: an earlier start that signs its counter or a later one is
-- another device. Unknown of what was taken before, so what is known to be above it stands in.
ALTER TABLE devices ADD COLUMN report_boot_counter INTEGER NOT NULL DEFAULT 0;
UPDATE devices SET report_boot_counter = report_counter + 1;

-- What a restore has lost is looked for as what publishers took back is.
CREATE INDEX releases_lost ON releases (release_id) WHERE admitted = 0;
