/**
 * What the nodes of a scenario do besides being connected: they provide keys, put values and open streams. At the end,
 * when everything has healed, each of these works between all nodes that are connected, by whatever way.
 */
import { Duration, Effect, Exit, Fiber, Option, Schedule, Scope, Stream } from "effect"
import { fromText } from "../../schema/Content.ts"
import type { PeerId } from "../../schema/Peer.ts"
import * as PublishedValue from "../../layers/dht/libp2p/PublishedValue.ts"
import type * as TestNetwork from "../TestNetwork.ts"
import type { Host, Hosts, Running } from "./Hosts.ts"
import type { Broken } from "./Invariants.ts"
import type { Scenario, Step } from "./Scenario.ts"

/** How long a lookup or an echo may take at the end. */
export const contentMillisMax = 15_000

const againAfter = Duration.seconds(3)

export type ContentStep = Extract<Step, { readonly do: "provide" | "put" | "echo" }>

/** The application of each node: where the scenario has an `echo`, it answers streams with what they bring, too. */
export const applicationOf = ({ steps }: Scenario, application: Application = () => Effect.void): Application =>
  steps.some((step) => step.do === "echo")
    ? (node) =>
      Effect.andThen(
        Effect.orDie(node.network.handle(protocol, (stream) => Stream.runForEach(stream.read, stream.write))),
        application(node)
      )
    : application

/** The content of the nodes. `neighbours` gives the peers to which a node has a connection. */
export const make = (hosts: Hosts, neighbours: (peer: PeerId) => ReadonlyArray<PeerId>) => {
  // Each belongs to one run of its node: what it provides ends with it, and so may the only copy of a value.
  const provided: Array<Owned> = []
  const stored: Array<Owned & { readonly value: string }> = []
  const opened: Array<readonly [Host, Host]> = []

  /** The other nodes that run and are connected with one, by whatever way. */
  const around = ({ peer: from }: Host): ReadonlyArray<Running> => {
    const reached = new Set([from])
    for (const peer of reached) for (const next of neighbours(peer)) reached.add(next)
    return hosts.all.flatMap(({ peer, running }) =>
      running !== undefined && peer !== from && reached.has(peer) ? [running] : []
    )
  }

  return {
    perform: (step: ContentStep): Effect.Effect<unknown> => {
      const self = hosts.named(step.node)
      const { running } = self
      if (step.do === "echo") opened.push([self, hosts.named(step.other)])
      if (running === undefined) return Effect.void
      const { network } = running.node
      switch (step.do) {
        case "provide":
          provided.push({ self, running, key: step.key })
          return hosts.begin(running, Scope.provide(network.provide(fromText(step.key)), running.scope))
        case "put": {
          const { key, value } = step
          const path = PublishedValue.path(self.peer, key)
          const put = network.putValue(PublishedValue.namespace, path, { value: bytesOf(value) }, { quorum: 1 })
          return hosts.begin(
            running,
            Effect.tap(put, () => Effect.sync(() => stored.push({ self, running, key, value })))
          )
        }
        case "echo":
          return hosts.begin(running, echoed(running, hosts.named(step.other).peer))
      }
    },
    /** Everything that must work now. `pass` lets the time go by in which it may. */
    settle: <E, R>(pass: Effect.Effect<void, E, R>): Effect.Effect<Broken | undefined, E, R> =>
      Effect.gen(function*() {
        const claims: ReadonlyArray<Broken & { readonly holds: Effect.Effect<boolean, unknown> }> = [
          ...provided.filter(isThere).flatMap(({ key, self }) =>
            around(self).map((running) => ({
              invariant: "provided" as const,
              nodes: [running.node.name, self.name],
              detail: `${running.node.name} does not find ${self.name}, which provides ${key}`,
              holds: Effect.map(
                Stream.runHead(
                  Stream.filter(running.node.network.findProviders(fromText(key)), ({ id }) => id === self.peer)
                ),
                Option.isSome
              )
            }))
          ),
          ...stored.filter(isThere).flatMap(({ key, self, value }) =>
            around(self).map((running) => ({
              invariant: "stored" as const,
              nodes: [running.node.name, self.name],
              detail: `${running.node.name} does not read ${value}, which ${self.name} has put as ${key}`,
              // A value is put once. A lookup that does not find it makes those known to whom the next one leads.
              holds: Effect.map(
                Effect.retry(
                  running.node.network.getValue(PublishedValue.namespace, PublishedValue.path(self.peer, key)),
                  { while: ({ reason }) => reason.isRetryable, schedule: Schedule.spaced(againAfter) }
                ),
                (read) => stored.some((one) => one.self === self && one.key === key && one.value === textOf(read.value))
              )
            }))
          ),
          ...opened.flatMap(([self, other]) =>
            around(self).some((running) => running === other.running) && self.running !== undefined &&
              neighbours(self.peer).includes(other.peer)
              ? [{
                invariant: "echo" as const,
                nodes: [self.name, other.name],
                detail: `${self.name} does not get back what it writes to ${other.name}`,
                holds: echoed(self.running, other.peer)
              }]
              : []
          )
        ]
        if (claims.length === 0) return undefined
        const fibers = yield* Effect.forEach(
          claims,
          ({ holds }) => Effect.forkDetach(Effect.exit(holds), { startImmediately: true })
        )
        yield* pass
        const index = fibers.findIndex((fiber) => {
          const exit = fiber.pollUnsafe()
          return exit === undefined || Exit.isFailure(exit) || Exit.isFailure(exit.value) || !exit.value.value
        })
        yield* Effect.forEach(fibers, (fiber) => Effect.forkDetach(Fiber.interrupt(fiber), { startImmediately: true }))
        return claims[index]
      })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

type Application = (node: TestNetwork.TestNode) => Effect.Effect<void, never, Scope.Scope>

/** What one run of a node provides or has put. */
interface Owned {
  readonly self: Host
  readonly running: Running
  readonly key: string
}

const protocol = "/codio-sim/echo/1.0.0"
const written = "what one node writes"

const bytesOf = (text: string) => new TextEncoder().encode(text)
const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

const isThere = ({ running, self }: Owned): boolean => self.running === running

/** Whether a peer sends back what it is sent. */
const echoed = ({ node: { network } }: Running, peer: PeerId) =>
  Effect.scoped(Effect.gen(function*() {
    const stream = yield* network.open(peer, protocol)
    yield* stream.write(bytesOf(written))
    yield* stream.closeWrite
    return (yield* stream.read.pipe(Stream.decodeText(), Stream.mkString)) === written
  }))
