/**
 * Random scenarios, each determined by its seed. Faults and wishes of every kind fill the first part; then everything
 * heals, and the last part is quiet, to show whether the nodes come back.
 */
import { Duration, Effect, Random } from "effect"
import type { Keeps, ScenarioInput } from "./Scenario.ts"

/** How a scenario is drawn. */
export interface RandomScenarioOptions {
  /** How many nodes, from 3. Defaults to 10. */
  readonly nodes?: number | undefined
  /** How long it lasts. Defaults to 10 minutes. The last two fifths are quiet. */
  readonly lasts?: Duration.Input | undefined
  /** How many faults and wishes there are, besides what ends them. Defaults to a random number from 8 to 24. */
  readonly steps?: number | undefined
}

/**
 * The scenario of a seed.
 */
export const make = (seed: string | number, options: RandomScenarioOptions = {}): Effect.Effect<ScenarioInput> =>
  Effect.service(Random.Random).pipe(
    Random.withSeed(`${seed} scenario`),
    Effect.map((random) => draw(() => random.nextDoubleUnsafe(), options))
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many scenarios have the production DHT, which costs more, with a key, a value and a stream. */
const kadShare = 0.1

type Step = ScenarioInput["steps"][number]
type Distribute<T> = T extends unknown ? Omit<T, "at"> : never
type Action = Distribute<Step>

function draw(chance: () => number, options: RandomScenarioOptions): ScenarioInput {
  const size = options.nodes ?? 10
  const lastsMillis = Duration.toMillis(Duration.fromInputUnsafe(options.lasts ?? "10 minutes"))
  const between = (least: number, most: number) => least + Math.floor(chance() * (most - least + 1))
  const maybe = (probability: number) => chance() < probability
  const pick = <A>(all: ReadonlyArray<A>): A => all[Math.floor(chance() * all.length)]!
  const names = Array.from({ length: size }, (_, index) => `n${index}`)
  const someone = () => pick(names)
  const another = (than: string) => pick(names.filter((name) => name !== than))
  const text = (millis: number) => `${Math.round(millis)} millis`

  const enableMdns = maybe(0.5)
  const isTight = maybe(0.4)
  const keeps: Keeps = maybe(0.5) || isTight
    ? { shape: "random", degree: between(1, 2) }
    : { shape: pick(["line", "ring", "star", "mesh"] as const) }
  const natted = maybe(0.3) ? new Set(Array.from({ length: between(1, 3) }, () => pick(names.slice(1)))) : new Set()

  const healing = lastsMillis * 0.6
  const steps: Array<readonly [atMillis: number, action: Action]> = []
  const blocked: Array<readonly [string, string]> = []
  const away = new Map<string, number>()
  const add = (at: number, action: Action) => steps.push([Math.round(at), action])
  const until = (at: number, least: number, most: number) => Math.min(healing, at + between(least, most))
  // Drawn in the order of time, since each draw depends on which nodes are away.
  const times = Array.from({ length: options.steps ?? between(8, 24) }, () => between(20_000, healing - 1_000))
  for (const at of times.sort((a, b) => a - b)) {
    const node = someone()
    const other = another(node)
    const kinds = {
      partition() {
        const groups: ReadonlyArray<Array<string>> = Array.from({ length: between(2, 3) }, () => [])
        for (const name of names) pick(groups).push(name)
        add(at, { do: "partition", groups })
        add(until(at, 2_000, 120_000), { do: "heal" })
      },
      silence() {
        const what = pick(["blackhole", "mute"] as const)
        add(at, maybe(0.5) ? { do: what, node } : { do: what, node, other })
        add(until(at, 2_000, 60_000), { do: "heal" })
      },
      sever: () => add(at, { do: "sever", node, other }),
      link() {
        const link = {
          latency: text(between(0, 400)),
          loss: between(0, 20) / 100,
          bandwidth: between(10_000, 10_000_000)
        }
        add(at, { do: "link", node, other, link, oneWay: maybe(0.3) })
        add(healing, { do: "link", node, other, link: { latency: "20 millis", loss: 0, bandwidth: 1e9 } })
      },
      nat() {
        add(at, { do: "nat", nodes: [node, other] })
        for (const hidden of [node, other]) add(until(at, 10_000, 120_000), { do: "expose", node: hidden })
      },
      end() {
        if ((away.get(node) ?? 0) >= at) return
        const back = until(at, 1_000, 90_000)
        away.set(node, back)
        add(at, { do: pick(["kill", "kill", "stop"] as const), node })
        add(back, { do: "start", node, disk: maybe(0.7) })
      },
      stall: () => add(at, { do: "stall", node, lasts: text(between(1_000, 40_000)) }),
      sleep: () => add(at, { do: "sleep", node, lasts: text(Math.min(healing - at, between(5_000, 180_000))) }),
      jump: () => add(at, { do: "jump", node, lasts: text(between(-36_000_000, 36_000_000)) }),
      readdress: () => add(at, { do: "readdress", node, moves: enableMdns && maybe(0.5) }),
      wish: () => add(at, { do: pick(["connect", "connect", "keep", "release", "disconnect"] as const), node, other }),
      block() {
        add(at, { do: "block", node, other })
        blocked.push([node, other])
      }
    }
    kinds[pick(Object.keys(kinds) as ReadonlyArray<keyof typeof kinds>)]()
  }
  add(healing, { do: "heal" })
  for (const [node, other] of blocked) add(healing, { do: "unblock", node, other })

  const usesKad = maybe(kadShare)
  if (usesKad) {
    for (const what of ["provide", "put", "echo"] as const) {
      const node = someone()
      const at = between(20_000, healing - 1_000)
      if (what === "provide") add(at, { do: what, node, key: "a film" })
      else if (what === "put") add(at, { do: what, node, key: "status", value: "here" })
      else add(at, { do: what, node, other: another(node) })
    }
  }

  return {
    // Never empty: `size` is at least one.
    nodes: names.map((name) =>
      natted.has(name) ? { name, nat: "home" } : { name }
    ) as unknown as ScenarioInput["nodes"],
    options: {
      enableMdns,
      ...(isTight ? { maxPeers: between(3, Math.max(3, size - 2)) } : {}),
      ...(maybe(0.3) ? { connectionIdleTimeout: "2 minutes" } : {})
    },
    ...(usesKad ? { dht: "kad" as const } : {}),
    keeps,
    link: { latency: text(between(1, 120)), jitter: text(between(0, 40)), loss: pick([0, 0, 0.01, 0.05]) },
    // The sort is stable: of steps at the same time the first drawn comes first.
    steps: steps.sort(([a], [b]) => a - b).map(([at, action]) => ({ at: text(at), ...action }) as Step),
    lasts: text(lastsMillis)
  }
}
