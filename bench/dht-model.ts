/**
 * What a lookup costs and finds in large networks, and what upkeep costs, on a model of the DHT that runs the nodes' own lookup.
 *
 *     npm run model:dht                            1,000 and 10,000 nodes, with and without churn, and each way to split buckets
 *     npm run model:dht -- --nodes 1000000         one size without churn; --tables kad-dht, kademlia or deepened
 *     npm run model:dht -- --nodes 1000 --session "1 hour" --minutes 30
 *
 * Options: `--lookups 200`, `--seed 1`.
 */
import { Duration, Effect } from "effect"
import process from "node:process"
import { parseArgs } from "node:util"
import { DhtModel } from "../src/testing/index.ts"

const { values } = parseArgs({
  options: {
    nodes: { type: "string" },
    session: { type: "string" },
    tables: { type: "string", default: "deepened" },
    minutes: { type: "string", default: "10" },
    lookups: { type: "string", default: "200" },
    seed: { type: "string", default: "1" }
  }
})

type Tables = NonNullable<DhtModel.DhtModelOptions["tables"]>
interface Row {
  readonly nodes: number
  readonly tables: Tables
  readonly session?: Duration.Input
}

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

const began = performance.now()
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
const cpu = process.cpuUsage()
console.log(
  `\n${Math.round((performance.now() - began) / 1_000)} s, ${Math.round((cpu.user + cpu.system) / 1e6)} s of CPU`
)

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}
