/**
 * A scenario as data: which nodes there are, how they are connected, and what befalls them when. `Simulation.run` runs
 * it.
 *
 * A scenario is plain JSON, with durations as texts, so that it can lie in a file and be printed when it fails.
 *
 * ```ts
 * const scenario = Scenario.make({
 *   nodes: [{ name: "alice" }, { name: "bob" }, { name: "carol", nat: "home" }],
 *   keeps: { shape: "star" },
 *   link: { latency: "30 millis", loss: 0.01 },
 *   steps: [
 *     { at: "1 minute", do: "partition", groups: [["alice"], ["bob", "carol"]] },
 *     { at: "3 minutes", do: "heal" },
 *     { at: "4 minutes", do: "kill", node: "alice" },
 *     { at: "5 minutes", do: "start", node: "alice" }
 *   ],
 *   lasts: "8 minutes"
 * })
 * ```
 */
import { Schema } from "effect"
import { NetworkOptions } from "../../schema/NetworkOptions.ts"

// A name becomes a part of an address.
const Name = Schema.String.check(
  Schema.isPattern(/^[\w-]+$/, { message: "expected a name of letters, digits, _ and -" })
)
const Time = Schema.DurationFromString

/** What messages between two nodes take: see `SimLinkOptions`. */
export const Link = Schema.Struct({
  latency: Schema.optionalKey(Time),
  jitter: Schema.optionalKey(Time),
  loss: Schema.optionalKey(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))),
  bandwidth: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThan(0)))
})
export type Link = typeof Link.Type

/**
 * A node, its options besides those of all nodes, and its NAT: nodes that name the same NAT are behind the same one.
 */
export const Node = Schema.Struct({
  name: Name,
  options: Schema.optionalKey(NetworkOptions),
  nat: Schema.optionalKey(Name)
})
export type Node = typeof Node.Type

/**
 * Which nodes keep which others from the start: pairs, the keeper first, or a shape over the nodes in their order. In a
 * `line` and a `ring` each keeps the next, in a `star` all keep the first, in a `mesh` each keeps all that follow it,
 * and in a `random` shape each keeps `degree` random others.
 */
export const Keeps = Schema.Union([
  Schema.Array(Schema.Tuple([Name, Name])),
  Schema.Struct({ shape: Schema.Literals(["line", "ring", "star", "mesh"]) }),
  Schema.Struct({ shape: Schema.Literal("random"), degree: Schema.Int.check(Schema.isGreaterThan(0)) })
])
export type Keeps = typeof Keeps.Type

const step = <D extends Schema.Top, F extends Schema.Struct.Fields>(action: D, fields: F) =>
  Schema.Struct({ at: Time, do: action, ...fields })
const two = { node: Name, other: Name }

/**
 * What happens, and when, from the start of the scenario: a fault of `SimNetwork`, or a wish that a node has. `start`
 * is for a node that was killed or stopped, with its disk unless `disk` is false; its former wishes to keep and to
 * block hold again. A wish of a node that does not run has no effect.
 *
 * `provide` lasts until its node ends; `put` stores a value under the node's own name, with one copy at least
 * elsewhere;
 * `echo` writes to another node and reads it back. At the end of the scenario each is asked for once more.
 */
export const Step = Schema.Union([
  step(Schema.Literal("partition"), { groups: Schema.Array(Schema.Array(Name)) }),
  step(Schema.Literals(["blackhole", "mute"]), { node: Name, other: Schema.optionalKey(Name) }),
  step(Schema.Literal("heal"), {}),
  step(Schema.Literal("sever"), two),
  step(Schema.Literal("link"), { ...two, link: Link, oneWay: Schema.optionalKey(Schema.Boolean) }),
  step(Schema.Literal("nat"), { nodes: Schema.Array(Name) }),
  step(Schema.Literals(["expose", "kill", "stop"]), { node: Name }),
  step(Schema.Literal("start"), { node: Name, disk: Schema.optionalKey(Schema.Boolean) }),
  step(Schema.Literals(["stall", "sleep", "jump"]), { node: Name, lasts: Time }),
  step(Schema.Literal("readdress"), { node: Name, moves: Schema.optionalKey(Schema.Boolean) }),
  step(Schema.Literal("provide"), { node: Name, key: Schema.String }),
  step(Schema.Literal("put"), { node: Name, key: Schema.String, value: Schema.String }),
  step(Schema.Literal("echo"), two),
  step(Schema.Literals(["connect", "keep", "release", "disconnect", "block", "unblock"]), two)
])
export type Step = typeof Step.Type

const namesIn = (step: Step): ReadonlyArray<string> => [
  ...("node" in step ? [step.node] : []),
  ...("other" in step && step.other !== undefined ? [step.other] : []),
  ...("nodes" in step ? step.nodes : []),
  ...("groups" in step ? step.groups.flat() : [])
]

/** A scenario with its durations decoded. */
export const Scenario = Schema.Struct({
  nodes: Schema.NonEmptyArray(Node),
  /**
   * The options of all nodes. Nodes find each other by themselves when `enableMdns` is true, which is not the default
   * here.
   */
  options: Schema.optionalKey(NetworkOptions),
  /** The DHT of all nodes: `SimDht`, or Kademlia as in production, which costs more. Defaults to `sim`. */
  dht: Schema.optionalKey(Schema.Literals(["sim", "kad"])),
  keeps: Schema.optionalKey(Keeps),
  /** The links that are not in `links`. */
  link: Schema.optionalKey(Link),
  links: Schema.optionalKey(Schema.Array(Schema.Struct({ between: Schema.Tuple([Name, Name]), ...Link.fields }))),
  steps: Schema.Array(Step),
  lasts: Time
}).check(Schema.makeFilter(({ keeps, links, nodes, steps }) => {
  const known = new Set(nodes.map(({ name }) => name))
  if (known.size < nodes.length) return "expected nodes of different names"
  const named = [
    ...steps.flatMap(namesIn),
    ...(links ?? []).flatMap(({ between }) => between),
    ...(keeps === undefined || "shape" in keeps ? [] : keeps.flat())
  ]
  const stranger = named.find((name) => !known.has(name))
  return stranger === undefined || `there is no node ${stranger}`
}))
export type Scenario = typeof Scenario.Type

/** A scenario as it is written: plain JSON. */
export type ScenarioInput = typeof Scenario.Encoded

/** Checks a scenario, and throws when it is wrong, saying where. */
export const make = Schema.decodeSync(Scenario)

/** The pairs of `keeps`, the keeper first. `chance` gives random numbers from 0 to 1. */
export const pairsOf = (
  { keeps = [], nodes }: Scenario,
  chance: () => number
): ReadonlyArray<readonly [string, string]> => {
  if (!("shape" in keeps)) return keeps
  const names = nodes.map(({ name }) => name)
  switch (keeps.shape) {
    case "line":
      return names.slice(1).map((name, index) => [names[index]!, name])
    case "ring":
      return names.map((name, index) => [name, names[(index + 1) % names.length]!])
    case "star":
      return names.slice(1).map((name) => [name, names[0]!])
    case "mesh":
      return names.flatMap((name, index) => names.slice(index + 1).map((other) => [name, other] as const))
    case "random":
      return names.flatMap((name) => {
        const others = names.filter((other) => other !== name)
        return Array.from(
          { length: Math.min(keeps.degree, others.length) },
          () => [name, others.splice(Math.floor(chance() * others.length), 1)[0]!] as const
        )
      })
  }
}
