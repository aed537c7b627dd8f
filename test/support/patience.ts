/**
 * How long a spec waits on the real clock for what has to come: a minute, since on a busy machine much comes late.
 *
 * `npm run test:mutants` waits less, since a fault is often that something never comes.
 */
export const patience: `${number} seconds` = `${Number(process.env["TEST_PATIENCE_SECONDS"] ?? 60)} seconds`
