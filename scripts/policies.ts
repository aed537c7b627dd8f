/**
 * Draws docs/POLICIES.md from the policies themselves: `npm run docs:policies`.
 *
 * Tables have the least, a drawn and the most time that the jitter of a Schedule may give; the drawn one comes from a
 * fixed seed, so that the file changes only with a policy. Examples are cut from examples/09-reconnect.ts and
 * examples/10-limits.ts, which are compiled and run with the others.
 */
import { DateTime, Duration, Effect, Pull, Random, Schedule } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { ConnectError } from "../src/schema/NetworkError.ts"
import { DialError, Unreachable } from "../src/schema/NetworkError.ts"
import type { Interest, Multiaddr, PeerId } from "../src/schema/Peer.ts"
import { AddressGuard, type AddressGuardRule } from "../src/services/AddressGuard.ts"
import { type DialCandidate, DialPolicy } from "../src/services/DialPolicy.ts"
import { type EvictionCandidate, EvictionPolicy, type EvictionRule } from "../src/services/EvictionPolicy.ts"
import { GuestPolicy, type GuestPolicyOptions } from "../src/services/GuestPolicy.ts"
import { fast, HealthPolicy, type HealthPolicyOptions } from "../src/services/HealthPolicy.ts"
import { KadDhtPolicy, type KadDhtPolicyOptions } from "../src/services/KadDhtPolicy.ts"
import { NetworkConfig } from "../src/services/NetworkConfig.ts"
import { ReconnectPolicy } from "../src/services/ReconnectPolicy.ts"
import { RelayPolicy, type RelayPolicyOptions } from "../src/services/RelayPolicy.ts"

const root = join(import.meta.dirname, "..")

/** The text of docs/POLICIES.md. */
export const render = Effect.gen(function*() {
  const reconnect = yield* ReconnectPolicy
  const health = yield* HealthPolicy
  const dial = yield* DialPolicy
  const evict = yield* EvictionPolicy
  const guests = yield* GuestPolicy
  const guard = yield* AddressGuard
  const dht = yield* KadDhtPolicy
  const relay = yield* RelayPolicy
  const config = yield* Effect.orDie(NetworkConfig.resolve())
  const error = new DialError({ target: "a peer", reason: new Unreachable({ detail: "connection refused" }) })
  const kept = yield* timelines(reconnect({ interest: "kept" }), error, 12)
  const wanted = yield* timelines(reconnect({ interest: "wanted" }), error, 12)
  const idle = seconds(Duration.toMillis(config.connectionIdleTimeout))
  const cooldown = seconds(Duration.toMillis(config.rediscoveryCooldown))

  return `# Policies

What a node does by itself, when, and how to change it. A behaviour is a \`Context.Reference\` with a default. \`Layer.succeed\` replaces it, and
\`Layer.provide\` gives it to the \`Network.layer\` of one node. A number is an option ([OPTIONS](OPTIONS.md)).

\`npm run docs:policies\` draws this page from the defaults themselves, and a spec checks that it has been run. The columns "least" and "most" are the
bounds of the jitter; "drawn" is one run with a fixed seed.

## ReconnectPolicy

When a lost peer is dialled again: a \`Schedule\` for each peer, whose input is the error of the last dial. If the lost connection lasted 15 s, the
first dial follows at once. The schedule begins anew after such a connection, a sighting of the peer, a change of this machine's addresses, a sleep
of the machine, and when the peer is kept that was only wanted or found, or the other way. A node that has lost every peer dials other known peers on
the schedule of a kept peer. A peer that refuses because its last slot is promised to another one is dialled again after 3 s, at most 8 times in a row,
and the delays do not grow meanwhile. The table counts from the first failed dial, without the time that the dials themselves take.

A kept peer, without end:

${table(["dial", "after a delay of", "least", "drawn", "most"], timeline(kept))}

A wanted peer, then \`ReconnectFailed\`:

${table(["dial", "after a delay of", "least", "drawn", "most"], timeline(wanted))}

${example("ReconnectPolicy")}

Spec: \`test/layers/peers/SupervisedConnectionManager.test.ts\`, "follows the policy that it is given".

## HealthPolicy

When a silent peer is given up. A \`Schedule\` gives the time between pings, and an answer has a time limit. After a miss the peer is pinged again at
once, and after \`maxFailures\` misses in a row its connection is closed. Time in which this process itself did not run does not count. A peer that has
sent or read 16 KiB of streams since the ping is alive, because the answer may wait behind other bytes. A remote that crashes is noticed at once by its
closed connection; the table is for a remote that is frozen or cut off, and counts from its last answer.

By default:

${table(["", "least", "drawn", "most"], yield* healthTimeline(health))}

\`fastHealthPolicy\`:

${table(["", "least", "drawn", "most"], yield* healthTimeline(fast))}

${example("HealthPolicy")}

Specs: \`test/services/HealthPolicy.test.ts\`; \`test/layers/peers/PingHealth.test.ts\`, "notices within three seconds with the fast policy".

## DialPolicy

How the addresses of one peer are dialled: in which order, how far apart, how long each, and how many at a time. An example of six addresses, given newest
first, when none of them answers:

${table(["address", "known of it", "dialled after", "given up after"], dialTimeline(dial))}

The first address that connects ends the other dials. A dial that fails at once starts the next at once. Over libp2p each
address is given up 3 s after its dial began, if that is sooner. The whole dial has \`dialTimeout\`, ${
    seconds(Duration.toMillis(config.dialTimeout))
  }.

${example("DialPolicy")}

Specs: \`test/services/DialPolicy.test.ts\`, \`test/layers/peers/AddressRace.test.ts\`; \`test/sim/stranded.test.ts\` replaces it.

## EvictionPolicy

Which peer is evicted from a full table. A kept peer, and a peer with a stream that this node opened, is never a candidate. An example of six
candidates; the columns say which goes first:

${table(["newcomer", "evicted first", "then"], evictions(evict, guests))}

${example("EvictionPolicy")}

Spec: \`test/services/EvictionPolicy.test.ts\`, "is the table's, and another one replaces it".

${guestSection(evict, guests)}

## AddressGuard

Which addresses are dialled that others told, through the DHT, identify, mDNS, or a source of peers of the program's own: asked for the address as it was
told, and for each address that its name resolves to, before a socket connects. Addresses that the program gives are never asked for. On a machine whose
interface has 192.168.1.20/24:

${table(["address", "told from the internet", "told from 192.168.1.9", "told from this machine"], guarded(guard))}

As a server of the DHT a node also names, and keeps in provider records, the private addresses that the guard lets pass, and no others. In a private network
of several subnets nodes find each other through the DHT only with a guard that lets their addresses pass.

A private address that worked before counts as told from there. A name that another node told is asked of DNS alone, not of the system's files.

${example("AddressGuard")}

Specs: \`test/services/AddressGuard.test.ts\`; \`test/live/addresses.live.test.ts\` replaces it.

${yield* dhtSection(dht)}

${yield* relaySection(relay)}

## Idleness

Two options: a peer is closed for idleness \`connectionIdleTimeout\`, ${idle}, after the end of its last application stream. A peer that either side
keeps is never idle. A peer that was idle or evicted, that refused or said goodbye, is not dialled because of a sighting for \`rediscoveryCooldown\`,
${cooldown}.
`
})

/** The path of the document. */
export const file = join(root, "docs/POLICIES.md")

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Draws<A> {
  readonly least: A
  readonly drawn: A
  readonly most: A
}

/** Runs an effect three times: with the least random numbers, with those of a fixed seed, and with the greatest. */
const drawn = <A>(effect: Effect.Effect<A>): Effect.Effect<Draws<A>> =>
  Effect.all({
    least: Effect.provideService(effect, Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => 0 }),
    drawn: Random.withSeed(effect, "codio"),
    most: Effect.provideService(effect, Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => 1 })
  })

/** The delays of a schedule in milliseconds, at most so many. */
const delays = <I>(schedule: Schedule.Schedule<unknown, I>, input: I, count: number): Effect.Effect<Array<number>> =>
  Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    const out: Array<number> = []
    let now = 0
    while (out.length < count) {
      const delay = yield* step(now, input).pipe(
        Effect.map(([, delay]) => Duration.toMillis(delay)),
        Pull.catchDone(() => Effect.succeed(undefined))
      )
      if (delay === undefined) break
      out.push(delay)
      now += delay
    }
    return out
  })

const timelines = (schedule: Schedule.Schedule<unknown, ConnectError>, error: ConnectError, count: number) =>
  drawn(delays(schedule, error, count))

const timeline = ({ drawn, least, most }: Draws<ReadonlyArray<number>>): ReadonlyArray<ReadonlyArray<string>> =>
  drawn.map((_, index) => [
    `${index + 2}`,
    `${seconds(least[index]!)} to ${seconds(most[index]!)}`,
    ...[least, drawn, most].map((delays) => seconds(sum(delays.slice(0, index + 1))))
  ])

/** How long a frozen remote may hold the close of its connection: see `Connection.close`. */
const closeMillis = 250

const healthTimeline = Effect.fnUntraced(function*(policy: HealthPolicyOptions) {
  const limit = Duration.toMillis(Duration.fromInputUnsafe(policy.timeout))
  const draws = yield* drawn(Effect.map(delays(policy.probe, undefined, 1), ([first]) => first ?? Infinity))
  const row = (name: string, after: number, leastAfter = after) => [
    name,
    seconds(draws.least + leastAfter),
    seconds(draws.drawn + after),
    seconds(draws.most + after)
  ]
  return [
    row("the next ping", 0),
    ...Array.from({ length: policy.maxFailures }, (_, index) => row(`miss ${index + 1}`, limit * (index + 1))),
    row("closed", limit * policy.maxFailures + closeMillis, limit * policy.maxFailures)
  ]
})

function dialTimeline(policy: typeof DialPolicy.Service): ReadonlyArray<ReadonlyArray<string>> {
  const at = (second: number) => DateTime.makeUnsafe(second * 1000)
  const candidate = (address: string, results: Omit<DialCandidate, "address"> = {}): DialCandidate => ({
    address: address as Multiaddr,
    ...results
  })
  const candidates = [
    candidate("/ip4/198.51.100.7/tcp/4001/p2p/<relay>/p2p-circuit"),
    candidate("/ip4/192.0.2.1/tcp/4001", { lastSuccess: at(1), lastFailure: at(9) }),
    candidate("/ip4/192.0.2.2/tcp/4001"),
    candidate("/ip4/192.0.2.3/tcp/4001"),
    candidate("/ip6/2001:db8::4/tcp/4001"),
    candidate("/ip4/192.0.2.5/tcp/4001", { lastSuccess: at(5) })
  ]
  const known = ({ lastFailure, lastSuccess }: DialCandidate) =>
    lastFailure !== undefined ? "worked, then failed" : lastSuccess !== undefined ? "worked last" : ""
  const [stagger, timeout] = [policy.stagger, policy.timeout].map((input) => Duration.toMillis(input)) as [
    number,
    number
  ]
  const begins: Array<number> = []
  return policy.order(candidates).map((candidate, index) => {
    // With all dials in flight the next one waits until the first of them ends.
    const slot = begins[index - policy.parallelDials]
    const begin = Math.max(index * stagger, slot === undefined ? 0 : slot + timeout)
    begins.push(begin)
    return [`\`${candidate.address}\``, known(candidate), seconds(begin), seconds(begin + timeout)]
  })
}

const candidate = (name: string, interest: Interest, changes: Partial<EvictionCandidate> = {}): EvictionCandidate => ({
  id: name as PeerId,
  interest,
  direction: "inbound",
  isGuest: false,
  isBusy: false,
  idleDuration: Duration.zero,
  connectionDuration: Duration.minutes(10),
  ...changes
})

const evictions = (rule: EvictionRule, guests: GuestPolicyOptions): ReadonlyArray<ReadonlyArray<string>> =>
  evictionRows(rule, guests, [
    candidate("transient, idle for 1 min", "transient", { idleDuration: Duration.minutes(1) }),
    candidate("transient, idle for 4 min", "transient", { idleDuration: Duration.minutes(4) }),
    candidate("transient, with a stream", "transient", { isBusy: true }),
    candidate("a guest", "transient", { isGuest: true }),
    candidate("discovered", "discovered", { idleDuration: Duration.minutes(2) }),
    candidate("wanted", "wanted", { idleDuration: Duration.minutes(3) })
  ])

const guestEvictions = (rule: EvictionRule, guests: GuestPolicyOptions): ReadonlyArray<ReadonlyArray<string>> => {
  const guest = (minutes: number) =>
    candidate(`guest, connected for ${minutes} min`, "transient", {
      isGuest: true,
      connectionDuration: Duration.minutes(minutes)
    })
  return evictionRows(rule, guests, [guest(9), guest(11), guest(30), candidate("transient, idle", "transient")])
}

const guestLimits = ({ share, stay }: GuestPolicyOptions): ReadonlyArray<ReadonlyArray<string>> => [
  ["for sure, `stay`", durationText(stay)],
  ["guests among the peers that may be evicted at all, `share`", `${100 * share} % or more`]
]

function evictionRows(
  rule: EvictionRule,
  guests: GuestPolicyOptions,
  candidates: ReadonlyArray<EvictionCandidate>
): ReadonlyArray<ReadonlyArray<string>> {
  const newcomers = [
    ["an inbound stranger", "transient", "inbound"],
    ["a dial of the DHT", "transient", "outbound"],
    ["a wanted peer", "wanted", "outbound"],
    ["a kept peer", "kept", "outbound"]
  ] as const
  return newcomers.map(([name, interest, direction]) => {
    const [first, ...then] = rule(candidates, { id: "" as PeerId, interest, direction }, guests).map(({ id }) => id)
    return [name, first ?? "none: the stranger is refused", then.join("; ")]
  })
}

function guarded(rule: AddressGuardRule): ReadonlyArray<ReadonlyArray<string>> {
  const interfaces = [{ address: "192.168.1.20", prefixLength: 24, family: 4, internal: false }] as const
  const addresses = [
    "/ip4/44.0.0.9/tcp/4001",
    "/dns4/peer.example.org/tcp/4001",
    "/dns4/localhost/tcp/4001",
    "/ip4/192.168.1.30/tcp/4001",
    "/ip4/192.168.7.30/tcp/4001",
    "/ip4/10.0.0.8/tcp/4001",
    "/ip4/192.168.1.20/tcp/4001",
    "/ip4/127.0.0.1/tcp/4001",
    "/ip6/::ffff:127.0.0.1/tcp/4001",
    "/ip6zone/lo/ip6/::1/tcp/4001",
    "/ip4/0.0.0.0/tcp/4001"
  ]
  const tellers = ["/ip4/44.0.0.1/tcp/4001", "/ip4/192.168.1.9/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]
  const answer = (address: string, teller: string) =>
    rule(address as Multiaddr, { interfaces, teller: teller as Multiaddr }) ? "dialled" : "left out"
  return addresses.map((address) => [`\`${address}\``, ...tellers.map((teller) => answer(address, teller))])
}

const guestSection = (evict: EvictionRule, guests: GuestPolicyOptions): string =>
  `## GuestPolicy

How long a stranger that keeps this node has its slot for sure. Such a *guest* is transient here, is never idle, and ranks above other transient peers:
a peer that is wanted here evicts those first. When a full table has many guests, one whose stay is over makes room for a newcomer, whether an inbound
stranger or a dial of the DHT. The guest that is connected for longest goes first; one with other streams open stays. It is told that it was evicted, and
may come again. The time counts from its connection, so that keeping anew does not begin anew.

${table(["limit", "value"], guestLimits(guests))}

An example of a table with three guests, each with no other stream, and one stranger without a stream:

${table(["newcomer", "evicted first", "then"], guestEvictions(evict, guests))}

${example("GuestPolicy")}

Specs: \`test/services/EvictionPolicy.test.ts\`, "evicts a guest whose stay is over, for whoever comes, the one that is connected for longest first";
\`test/sim/guests.test.ts\`, which replaces it.`

const dhtSection = Effect.fnUntraced(function*(dht: KadDhtPolicyOptions) {
  return `## KadDhtPolicy

When records of the DHT are announced, and what a lookup may cost. \`provide\` and \`startProviding\` announce a key at once. Servers forget a record
after 24 hours, so it is announced again long before.

${table(["", "least", "drawn", "most"], yield* dhtTimeline(dht))}

The time between two announcements of a key is drawn once for each node. With a \`ttl\` a key is announced again after at most half of it.

${table(["limit of a lookup", "value"], lookupLimits(dht))}

A call may give another time and number (\`FindOptions\`).

${example("KadDhtPolicy")}

Specs: \`test/layers/dht/libp2p/KadDht.live.test.ts\`, "announces a key that was provided before there was a peer"; \`test/support/DhtNode.ts\` replaces it.`
})

const relaySection = Effect.fnUntraced(function*(relay: RelayPolicyOptions) {
  return `## RelayPolicy

How many relays a node uses, and when it asks them. A relay of \`relayPeers\` is always used and asked without end.

${table(["a relay", "least", "drawn", "most"], yield* relayTimeline(relay))}

Relays among the connected peers are used until ${relay.relays} relays are. After ${relay.refusals} refusals in a row such a relay is left alone for
${durationText(relay.rest)}. A reservation is renewed every ${
    durationText(relay.renew)
  }: a relay may forget one without a word.

${example("RelayPolicy")}

Specs: \`test/live/relay.live.test.ts\`, "does not keep a relay that refuses, and takes the next one", which replaces it.`
})

const dhtTimeline = Effect.fnUntraced(function*(policy: KadDhtPolicyOptions) {
  const waits = yield* drawn(delays(policy.retry, undefined, 8))
  const republish = yield* drawn(delays(policy.republish, undefined, 1))
  return [
    ...waitRows("after failure", waits),
    [
      "between two announcements",
      ...[republish.least, republish.drawn, republish.most].map(([first]) => seconds(first!))
    ]
  ]
})

const lookupLimits = (policy: KadDhtPolicyOptions): ReadonlyArray<ReadonlyArray<string>> => [
  ["time, `findTimeout`", durationText(policy.findTimeout)],
  ["providers, `maxProviders`", `${policy.maxProviders}`],
  ["age of a shared result, `cacheTime`", durationText(policy.cacheTime)]
]

const relayTimeline = Effect.fnUntraced(function*(policy: RelayPolicyOptions) {
  return waitRows("asked again after refusal", yield* drawn(delays(policy.retry, undefined, 8)))
})

/** A row for each wait of a schedule. */
const waitRows = (
  name: string,
  { drawn, least, most }: Draws<ReadonlyArray<number>>
): ReadonlyArray<ReadonlyArray<string>> =>
  drawn.map((_, index) => [
    `${name} ${index + 1}`,
    ...[least, drawn, most].map((delays) => seconds(delays[index]!))
  ])

/** The lines of the examples that begin with a comment on the policy, up to the next empty line. */
function example(policy: string): string {
  const text = ["09-reconnect.ts", "10-limits.ts"].map((file) => readFileSync(join(root, "examples", file), "utf8"))
    .join("\n")
  const part = new RegExp(`^// ${policy}: [\\s\\S]*?(?=\\n\\n)`, "m").exec(text)?.[0]
  if (part === undefined) throw new Error(`no example has a part that begins with "// ${policy}: "`)
  return `\`\`\`ts\n${part}\n\`\`\``
}

function table(head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string {
  const line = (cells: ReadonlyArray<string>) => `| ${cells.join(" | ")} |`
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n")
}

const sum = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0)

const durationText = (input: Duration.Input): string => seconds(Duration.toMillis(Duration.fromInputUnsafe(input)))

function seconds(millis: number): string {
  if (millis < 120_000) return `${Number((millis / 1000).toFixed(2))} s`
  if (millis < 7_200_000) return `${Number((millis / 60_000).toFixed(1))} min`
  return `${Number((millis / 3_600_000).toFixed(1))} h`
}

// Last, when everything above is defined.
if (import.meta.main) writeFileSync(file, await Effect.runPromise(render))
