/**
 * `npm run bench:dht`: the DHT of this library against plain js-libp2p, and against Rust and Go where they can be
 * built, interleaved in one run. Prints medians and 95th percentiles, ratios to plain js-libp2p, and which aims are
 * met. docs/PERFORMANCE.md says what each figure is.
 *
 *     npm run bench:dht                               all rows but the long one
 *     npm run bench:dht -- crowd delay                those rows
 *     npm run bench:dht -- --operations 50 --long     more of each, and the long one, which announces 10,000 keys
 */
import { spawnSync } from "node:child_process"
import { cpus, loadavg } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { parseArgs } from "node:util"
import { missing } from "../../test/interop/build.ts"
import * as Announcer from "./Announcer.ts"
import * as Bed from "./Bed.ts"
import type { Kind, Measured } from "./BenchNode.ts"
import * as Report from "./Report.ts"

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    operations: { type: "string", default: "30" },
    kinds: { type: "string", default: "plain,ours,rust,go" },
    cross: { type: "boolean", default: false },
    long: { type: "boolean", default: false },
    built: { type: "boolean", default: false }
  }
})
const operations = Number(values.operations)
/** Operations of the warm-up, which do not count. */
const warmUp = 5
const available = (values.kinds.split(",") as Array<Kind>).filter((kind) =>
  kind === "plain" || kind === "ours" || missing().length === 0
)

interface Row {
  readonly label: string
  readonly beds: ReadonlyArray<Bed.BedOptions>
  /** Operations that count, where each takes long. */
  readonly operations?: number
  /** How many nodes join at the end, each a process of its own, whose first provide is measured. */
  readonly joining?: number
  /** How many keys are announced at the end, and once more. */
  readonly republished?: number
  readonly aims: ReadonlyArray<Report.Aim>
}

/** The period over which the announcements of the keys are spread. */
const republishSeconds = 120
const own: ReadonlyArray<Kind> = ["plain", "ours"]
const eighth: ReadonlyArray<Report.Aim> = [
  { of: "provide", ratio: 1 / 8 },
  { of: "first", ratio: 1 / 8 },
  { of: "whole", ratio: 1 / 8 }
]
const beds = (crowd: ReadonlyArray<number>, kinds = own, options: Partial<Bed.BedOptions> = {}) =>
  kinds.map((kind) => ({ ...options, kind, crowd }))

const rows: { readonly [name: string]: Row } = {
  crowd: {
    label: "one node against 19 in another process",
    beds: beds([19]),
    joining: 5,
    aims: [
      { of: "provide", ratio: 1 / 8, most: 8 },
      { of: "first", ratio: 1 / 8, most: 1.5 },
      { of: "whole", ratio: 1 / 8 },
      { of: "provide: writes", most: 20 },
      { of: "just joined: provide", most: 200 }
    ]
  },
  processes: {
    label: "20 processes, one node each",
    beds: beds(Array.from({ length: 19 }, () => 1), ["plain", "ours", "rust", "go"]),
    aims: [{ of: "provide", ratio: 1 / 6 }]
  },
  delay: {
    label: "20 ms added to each round trip, one node against 19 in another process",
    beds: beds([19], own, { delayMillis: 20 }),
    aims: [
      { of: "provide", ratio: 1 / 3 },
      { of: "optimistic", ratio: 1 / 50, against: "provide" },
      { of: "first", ratio: 1 / 2 }
    ]
  },
  crowd49: { label: "49 nodes, 48 of them in another process", beds: beds([48]), aims: eighth },
  crowd199: {
    label: "199 nodes, 198 of them in two other processes",
    beds: beds([99, 99]),
    operations: 20,
    aims: eighth
  },
  ...values.long || positionals.includes("republish")
    ? {
      republish: {
        label: "10,000 keys announced again, by one node in a network of 200",
        beds: beds([99, 100], ["ours"], { republishSeconds }),
        operations: 0,
        republished: 10_000,
        aims: [{ of: "again: writes for a key", most: 3 }]
      }
    }
    : {},
  ...values.cross
    ? {
      "plain crowd": {
        label: "one node against 19 of plain js-libp2p",
        beds: beds([19], own, { crowdKind: "plain" }),
        aims: []
      },
      "our crowd": {
        label: "one node against 19 of this library",
        beds: beds([19], own, { crowdKind: "ours" }),
        aims: []
      }
    }
    : {}
}

const unknown = positionals.find((name) => !(name in rows))
if (unknown !== undefined) {
  console.error(`no row is called ${unknown}; there are ${Object.keys(rows).join(", ")}`)
  process.exit(1)
}
if (!values.built) {
  const build = spawnSync(process.execPath, [join(import.meta.dirname, "../../scripts/build.mjs")], {
    stdio: "inherit"
  })
  if (build.status !== 0) process.exit(build.status ?? 1)
}

const began = performance.now()
console.log(
  `Node ${process.version}, ${cpus().length} cores, load ${
    loadavg()[0]!.toFixed(1)
  }. Milliseconds, median and 95th percentile of ` +
    `${operations} after ${warmUp} to warm up.`
)
for (const [name, row] of Object.entries(rows)) {
  if (positionals.length === 0 || positionals.includes(name)) await measure(row)
}
await Announcer.stop()
console.log(`\n${Report.verdict()}; took ${Bed.seconds(began)} s`)
process.exit(0)

// internal ------------------------------------------------------------------------------------------------------------

async function measure(row: Row): Promise<void> {
  console.log(`\n${row.label}`)
  const networks: Array<Bed.Bed> = []
  const report = Report.make()
  try {
    for (const options of row.beds.filter(({ kind }) => available.includes(kind))) {
      const bed = await Bed.make(options)
      console.log(`  ${bed.kind}: ${bed.note}`)
      networks.push(bed)
    }
    const count = row.operations === 0 ? 0 : warmUp + Math.min(operations, row.operations ?? operations)
    // Keys that the measured node has never heard of and has no copy of.
    const keys = Array.from({ length: count }, () => Bed.randomKey())
    for (const { crowd, kind } of networks) await Announcer.announce(crowd, keys, kind !== "rust")
    for (const [index, key] of keys.entries()) {
      // The order rotates, so that no side always runs after the same other side.
      for (const bed of index % 2 === 0 ? networks : networks.toReversed()) {
        const figures = await operate(bed, key)
        if (index >= warmUp) { for (const [of, value] of Object.entries(figures)) report.add(bed.kind, of, value) }
      }
    }
    for (const bed of row.republished === undefined ? [] : networks) {
      const keys = row.republished!
      // A key is announced again after at most five quarters of the period.
      const { copies, cpu, first, sent } = await bed.measured.republish(keys, republishSeconds * 1.25)
      const again = sent.announcements / copies
      report.add(bed.kind, "copies of a key", copies)
      report.add(bed.kind, "first: seconds", first.millis / 1000)
      report.add(bed.kind, "first: seconds of processor time", first.cpu / 1000)
      report.add(bed.kind, "first: writes for a key", first.sent.writes / keys)
      report.add(bed.kind, "again: keys", again)
      report.add(bed.kind, "again: seconds of processor time", cpu / 1000)
      report.add(bed.kind, "again: writes for a key", sent.writes / again)
      report.add(bed.kind, "again: messages for a key", sent.messages / again)
    }
    for (let joined = 0; joined < (row.joining ?? 0); joined++) {
      for (const bed of joined % 2 === 0 ? networks : networks.toReversed()) {
        const { millis, sent } = await bed.join()
        report.add(bed.kind, "just joined: provide", sent?.announcements === 0 ? Number.POSITIVE_INFINITY : millis)
        report.add(bed.kind, "just joined: copies", sent?.announcements ?? Number.NaN)
      }
    }
    console.log(report.table(networks.map(({ kind }) => kind), row.aims))
  } finally {
    await Promise.all(networks.map((bed) => bed.stop()))
  }
}

/** Each operation once. A provider that is not found counts as infinitely late. */
async function operate(bed: Bed.Bed, known: Uint8Array): Promise<Record<string, number>> {
  const before = await bed.cpu()
  const provided = await bed.measured.provide(Bed.randomKey())
  const found = await bed.measured.find(known)
  const cpu = (await bed.cpu()) - before
  const optimistic = bed.kind === "ours" ? await bed.measured.provide(Bed.randomKey(), true) : undefined
  // The lookup goes on, and must not overlap with the next operation.
  if (optimistic !== undefined) await new Promise((resolve) => setTimeout(resolve, 300))
  return {
    provide: provided.millis,
    ...(optimistic === undefined ? {} : { optimistic: optimistic.millis }),
    first: found.firstMillis ?? Number.POSITIVE_INFINITY,
    whole: found.millis,
    ...sent("provide", provided),
    ...(provided.sent === undefined ? {} : { "provide: copies": provided.sent.announcements }),
    ...sent("find", found),
    // Processor time of the serving nodes for one provide and one find.
    ...(Number.isNaN(cpu) ? {} : { "served: cpu": cpu })
  }
}

function sent(operation: string, { sent }: Measured): Record<string, number> {
  return sent === undefined ? {} : { [`${operation}: writes`]: sent.writes, [`${operation}: messages`]: sent.messages }
}
