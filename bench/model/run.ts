/**
 * What a lookup costs and finds in large networks, and what upkeep costs, on a model of the DHT that runs the nodes'
 * own lookup.
 *
 *     npm run bench:model                      1,000 and 10,000 nodes, with and without churn, each way of splitting
 *     npm run bench:model -- --nodes 1000000   one size without churn; --tables kad-dht, kademlia or deepened
 *     npm run bench:model -- --nodes 1000 --session "1 hour" --minutes 30
 *     npm run bench:model -- --crowd           false nodes among 1,000: crowds around a key, and anywhere
 *
 * Options: `--lookups 200`, `--seed 1`.
 */
import { Duration, Effect } from "effect"
import process from "node:process"
import { parseArgs } from "node:util"
import * as Crowding from "../../src/layers/dht/lookup/Crowding.ts"
import * as DhtModel from "./DhtModel.ts"

const { values } = parseArgs({
  options: {
    nodes: { type: "string" },
    session: { type: "string" },
    tables: { type: "string", default: "deepened" },
    minutes: { type: "string", default: "10" },
    lookups: { type: "string", default: "200" },
    seed: { type: "string", default: "1" },
    crowd: { type: "boolean", default: false }
  }
})

type Tables = NonNullable<DhtModel.DhtModelOptions["tables"]>
interface Row {
  readonly nodes: number
  readonly tables: Tables
  readonly session?: Duration.Input
}

const began = performance.now()
if (values.crowd) await crowds()
else await sizes()
const cpu = process.cpuUsage()
console.log(
  `\n${Math.round((performance.now() - began) / 1_000)} s, ${Math.round((cpu.user + cpu.system) / 1e6)} s of CPU`
)

// internal ------------------------------------------------------------------------------------------------------------

async function sizes(): Promise<void> {
  const rows: ReadonlyArray<Row> = values.nodes === undefined
    ? [1_000, 10_000].flatMap((nodes): ReadonlyArray<Row> => [
      { nodes, tables: "deepened" },
      { nodes, tables: "kad-dht" },
      { nodes, tables: "kademlia" },
      { nodes, tables: "deepened", session: "1 hour" },
      { nodes, tables: "kad-dht", session: "1 hour" }
    ])
    : [{
      nodes: Number(values.nodes),
      tables: values.tables as Tables,
      ...(values.session === undefined ? {} : { session: values.session as Duration.Input })
    }]

  const roundTrip = "100 millis"
  console.log(
    `${values.lookups} lookups each, round trip ${roundTrip}; with churn after ${values.minutes} minutes; half / 95 of 100 / all at most\n`
  )
  console.log(
    "| nodes | log2 | tables | session | hops | asked | time, ms | of the 20 closest | records found |" +
      " upkeep, messages per node and hour | known by a node | of them dead |"
  )
  console.log("|---|---|---|---|---|---|---|---|---|---|---|---|")
  for (const { nodes, session, tables } of rows) {
    const line = await Effect.runPromise(Effect.gen(function*() {
      const model = yield* DhtModel.make({ nodes, tables, roundTrip, session, seed: values.seed })
      const upkeep = session === undefined ? undefined : yield* model.advance(`${Number(values.minutes)} minutes`)
      const { size, dead } = model.tables()
      const survey = yield* DhtModel.survey(model, Number(values.lookups))
      return [
        nodes.toLocaleString("en"),
        Math.log2(nodes).toFixed(1),
        tables,
        session === undefined ? "no churn" : Duration.format(Duration.fromInputUnsafe(session)),
        survey.hops.join(" / "),
        survey.asked.join(" / "),
        survey.tookMillis.join(" / "),
        percent(survey.closestFound),
        percent(survey.recordsFound),
        upkeep === undefined ? "" : String(Math.round(upkeep.messagesPerNodeAndHour)),
        String(Math.round(size)),
        percent(dead)
      ]
    }))
    console.log(`| ${line.join(" | ")} |`)
  }
}

/** The crowd joins before the key is provided, or after. Each row sums up twenty networks and keys. */
async function crowds(): Promise<void> {
  const nodes = Number(values.nodes ?? 1_000)
  const runs = 20
  console.log(`${nodes} honest nodes; each row of ${runs} keys\n`)
  console.log(
    "| false nodes | what they do | honest among the closest | found, 1 path | found, 4 paths | found, provided before |" +
      " provider warned | seeker warned | found beyond | asked, beyond |"
  )
  console.log("|---|---|---|---|---|---|---|---|---|---|")
  const kinds = ["withholding", "colluding"] as const
  const cases = [
    ...kinds.flatMap((kind) => [5, 10, 15, 20, 40].map((size) => ({ kind, size, isAnywhere: false }))),
    ...[0.25, 0.5, 1, 3].map((share) => ({ kind: "colluding" as const, size: share * nodes, isAnywhere: true }))
  ]
  for (const { isAnywhere, kind, size } of cases) {
    const sums = { honest: 0, one: 0, four: 0, before: 0, provider: 0, seeker: 0, beyond: 0, asked: 0, askedBeyond: 0 }
    for (let run = 0; run < runs; run++) {
      await Effect.runPromise(Effect.gen(function*() {
        const model = yield* DhtModel.make({ nodes, tables: "deepened", seed: `${values.seed}/${size}/${run}` })
        const early = model.randomPosition()
        yield* model.provide(early)
        const key = isAnywhere ? model.randomPosition() : early
        if (isAnywhere) yield* model.scatter(size, kind)
        else yield* model.crowd(key, size, kind)
        const estimate = Crowding.makeNetworkSize()
        for (let index = 0; index < 32; index++) {
          const { closest, target } = yield* model.lookup(model.randomPosition())
          estimate.observe(target, closest)
        }
        const networkSize = estimate.estimate()!
        if ((yield* model.find(early)).isFound) sums.before++
        // Provided anew, under another key of the same position, of which nobody has a record.
        const again = { ...key }
        const { closest } = yield* model.provide(again)
        sums.honest += closest.filter(({ kind }) => kind === "honest").length
        if (Crowding.crowdingOf(again, closest, networkSize).isCrowded) sums.provider++
        const find = yield* model.find(again)
        sums.asked += find.asked
        if (find.isFound) sums.one++
        else if (Crowding.crowdingOf(again, find.closest, networkSize).isCrowded) sums.seeker++
        if ((yield* model.find(again, { paths: 4 })).isFound) sums.four++
        yield* model.provideBeyond(again, networkSize)
        const beyond = yield* model.findBeyond(again, networkSize)
        sums.askedBeyond += beyond.asked
        if (beyond.isFound) sums.beyond++
      }))
    }
    const of = (sum: number) => `${sum} of ${runs}`
    const line = [
      `${size} ${isAnywhere ? "anywhere" : "around the key"}`,
      kind === "colluding" ? "name only each other" : "name the nearest",
      (sums.honest / runs).toFixed(1),
      of(sums.one),
      of(sums.four),
      of(sums.before),
      of(sums.provider),
      `${sums.seeker} of ${runs - sums.one} that found nothing`,
      of(sums.beyond),
      (sums.askedBeyond / runs).toFixed(0)
    ]
    console.log(`| ${line.join(" | ")} |`)
  }
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}
