/**
 * The metrics of the library. Read them with `Metric.snapshot`, or export them with any of effect's exporters.
 */
import { Metric } from "effect"

/** Connected peers, of all nodes in the process. */
export const peers = Metric.gauge("codio_peers", { description: "Connected peers" })

/** Dials by `outcome`: `connected`, or the reason of the failure. */
export const dials = Metric.counter("codio_dials_total", { description: "Dials", incremental: true })

/** Connections refused by the gate, by `reason`, a `RefusalReason`. */
export const refusals = Metric.counter("codio_refusals_total", {
  description: "Refused connections",
  incremental: true
})

/** Streams that this node reset to keep a bound, by `reason`, a `StreamRefusal`. */
export const refusedStreams = Metric.counter("codio_streams_refused_total", {
  description: "Streams reset to keep a bound",
  incremental: true
})

/** Events that a slow subscriber lost. */
export const eventsDropped = Metric.counter("codio_events_dropped", {
  description: "Events lost by slow subscribers",
  incremental: true
})

/**
 * Lookups for a key whose closest nodes are improbably close to it: an attacker may have made their ids to take over
 * the key's records. Chance alone gives one in four thousand.
 */
export const crowdedLookups = Metric.counter("codio_dht_crowded_lookups_total", {
  description: "Lookups in the DHT that ended in a crowd of improbably near nodes",
  incremental: true
})

/** Saved lists that did not decode, and were set aside. */
export const damagedLists = Metric.counter("codio_damaged_lists_total", {
  description: "Saved lists that were damaged and set aside",
  incremental: true
})

/** Defects in background work, by `work`: bugs, of the library or of what a program has put in. */
export const defects = Metric.counter("codio_defects_total", {
  description: "Defects in background work, which went on",
  incremental: true
})
