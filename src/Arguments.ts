/**
 * Reads the arguments of `Network`'s functions. Each reader gives the canonical form of what a program passed, or
 * nothing where there is only one, and fails typed with one line that says what was wrong. A program in plain
 * JavaScript may pass anything.
 */
import { Duration, Effect, Layer, Option, Predicate, Result, Schema } from "effect"
import * as Canonical from "./schema/Canonical.ts"
import * as ContentKey from "./schema/Content.ts"
import {
  DhtError,
  DialError,
  InvalidAddress,
  InvalidPeerId,
  ProtocolError,
  RecordInvalid
} from "./schema/NetworkError.ts"
import { undialable } from "./schema/OptionTable.ts"
import {
  type DialTarget,
  type Multiaddr,
  type PeerId,
  ProtocolId,
  readMultiaddr,
  readPeerId,
  readTarget,
  type TargetText
} from "./schema/Peer.ts"
import type { ValueRules } from "./schema/ValueNamespace.ts"
import type { FindOptions, FindProvidersOptions, ProvideOptions, ValueOptions } from "./services/Dht.ts"
import type { HandleOptions } from "./services/Protocols.ts"

/** A multiaddr in any of its forms. */
export function addressOf(text: string): Effect.Effect<Multiaddr, InvalidAddress> {
  return Effect.mapError(Effect.fromResult(readMultiaddr(text)), (detail) => new InvalidAddress({ detail }))
}

/** As the option `announceAddresses`, which refuses what nobody can dial. */
export function announcedOf(text: string): Effect.Effect<Multiaddr, InvalidAddress> {
  return Effect.flatMap(addressOf(text), (address) => {
    const detail = undialable(address)
    return detail === undefined ? Effect.succeed(address) : Effect.fail(new InvalidAddress({ detail }))
  })
}

/** What a program may dial. */
export function targetOf(target: DialTarget | TargetText): Effect.Effect<DialTarget, DialError> {
  return Result.match(readTarget(target), {
    onFailure: (detail) =>
      Effect.fail(
        new DialError({
          target: named(Predicate.isReadonlyObject(target) && typeof target.id === "string" ? target.id : target),
          reason: new InvalidAddress({ detail })
        })
      ),
    onSuccess: Effect.succeed
  })
}

/** A peer id in any of its forms. */
export function peerIdOf(peer: string): Effect.Effect<PeerId, InvalidPeerId> {
  return Effect.fromResult(Result.mapError(readPeerId(peer), (detail) => new InvalidPeerId({ detail })))
}

/** The key of some content in any of its forms. */
export function keyOf(operation: DhtError["operation"], key: string): Effect.Effect<ContentKey.ContentKey, DhtError> {
  return Effect.fromResult(
    Result.mapError(ContentKey.parse(key), ({ detail }) => recordInvalid(operation, key, detail))
  )
}

/** The id of a protocol. */
export function protocolOf(protocol: string): Effect.Effect<ProtocolId, ProtocolError> {
  return isProtocolId(protocol) ? Effect.succeed(protocol) : Effect.fail(
    new ProtocolError({
      protocol: named(protocol),
      detail: "expected a slash, then 1 to 255 characters without spaces"
    })
  )
}

/** A handler and its options. */
export function handlerOf<E, R>(
  protocol: ProtocolId,
  handler: unknown,
  options: HandleOptions<E, R> | undefined
): Effect.Effect<void, ProtocolError> {
  const detail = typeof handler === "function"
    ? handleOptionsProblem(options)
    : `handler: expected a function that makes an Effect of the stream, got ${Canonical.shortened(handler)}`
  return detail === undefined ? Effect.void : Effect.fail(new ProtocolError({ protocol, detail }))
}

/** How a key is announced. The DHT itself reads the `ttl`. */
export function provideOptionsOf(
  operation: DhtError["operation"],
  key: string,
  options: ProvideOptions | undefined
): Effect.Effect<ProvideOptions | undefined, DhtError> {
  const problem = optionsProblem(options, ["ttl", "optimistic"]) ?? switchProblem("optimistic", options?.optimistic)
  return problem === undefined ? Effect.succeed(options) : Effect.fail(recordInvalid(operation, key, problem))
}

/** What a lookup of providers may cost. */
export function findOptionsOf(
  key: string,
  options: FindProvidersOptions | undefined
): Effect.Effect<FindOptions | undefined, DhtError> {
  const problem = findOptionsProblem(options)
  return problem === undefined ? Effect.succeed(options) : Effect.fail(recordInvalid("findProviders", key, problem))
}

/** Where a value stands, and how many nodes it needs. */
export function valueOf(
  operation: DhtError["operation"],
  namespace: ValueRules,
  path: string,
  options: ValueOptions | undefined
): Effect.Effect<void, DhtError> {
  const quorum = options?.quorum
  const problem = !isNamespace(namespace)
    ? `expected a namespace such as PublishedValue.namespace, got ${Canonical.shortened(namespace)}`
    : typeof path !== "string"
    ? `path: expected a text, got ${Canonical.shortened(path)}`
    : optionsProblem(options, ["quorum"]) ??
      (quorum === undefined || (Number.isInteger(quorum) && quorum >= 0)
        ? undefined
        : `quorum: expected a whole number from 0, got ${Canonical.shortened(quorum)}`)
  return problem === undefined ? Effect.void : Effect.fail(recordInvalid(operation, path, problem))
}

/** What is wrong with the parts that replace those of a node. What was given is not shown: it may be a key. */
export function partsProblems(parts: unknown): ReadonlyArray<string> {
  if (parts === undefined) return []
  if (!Predicate.isReadonlyObject(parts)) return ["parts: expected an object of Layers, identity and dht"]
  return Object.entries(parts).flatMap(([name, part]) => {
    const example = nodeParts.get(name)
    if (example === undefined) {
      return [`${Canonical.shortened(name)}: there is no such part; expected ${[...nodeParts.keys()].join(", ")}`]
    }
    return part === undefined || Layer.isLayer(part) ? [] : [`${name}: expected a Layer such as ${example}`]
  })
}

/** An error of the DHT for an argument that makes no sense. */
export function recordInvalid(operation: DhtError["operation"], subject: string, detail: string): DhtError {
  return new DhtError({ operation, subject: Canonical.shortened(subject), reason: new RecordInvalid({ detail }) })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const isProtocolId = Schema.is(ProtocolId)

const nodeParts = new Map([["identity", "SeededIdentity.layer(seed)"], ["dht", "NoDht.layer"]])

/** What was passed, as the name of what an error is about. */
const named = (given: unknown): string => Canonical.shortened(given) || "\"\""

/** What is wrong with options, if anything. A misspelled one would be passed over in silence. */
function optionsProblem(options: unknown, names: ReadonlyArray<string>): string | undefined {
  if (options === undefined) return undefined
  if (!Predicate.isReadonlyObject(options)) {
    return `options: expected an object with ${names.join(", ")}, got ${Canonical.shortened(options)}`
  }
  const unknown = Object.keys(options).find((name) => !names.includes(name))
  return unknown === undefined
    ? undefined
    : `${Canonical.shortened(unknown)}: there is no such option; expected ${names.join(", ")}`
}

function switchProblem(name: string, value: unknown): string | undefined {
  return value === undefined || typeof value === "boolean"
    ? undefined
    : `${name}: expected true or false, got ${Canonical.shortened(value)}`
}

function handleOptionsProblem<E, R>(options: HandleOptions<E, R> | undefined): string | undefined {
  // A misspelled `authorize` would let everybody in.
  const problem = optionsProblem(options, ["maxStreamsPerPeer", "maxBufferedBytesPerPeer", "authorize"])
  if (problem !== undefined) return problem
  // A comparison with what is no number is false, so a wrong limit would be none.
  for (const name of ["maxStreamsPerPeer", "maxBufferedBytesPerPeer"] as const) {
    const limit = options?.[name]
    if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) {
      return `${name}: expected a whole number from 1, got ${Canonical.shortened(limit)}`
    }
  }
  const authorize: unknown = options?.authorize
  return authorize === undefined || typeof authorize === "function"
    ? undefined
    : "authorize: expected a function of the peer id"
}

function findOptionsProblem(options: FindProvidersOptions | undefined): string | undefined {
  const problem = optionsProblem(options, ["maxProviders", "findTimeout", "requirePeers"])
  if (problem !== undefined) return problem
  const { findTimeout, maxProviders, requirePeers } = options ?? {}
  if (maxProviders !== undefined && !(Number.isInteger(maxProviders) && maxProviders > 0)) {
    return `maxProviders: expected a whole number from 1, got ${Canonical.shortened(maxProviders)}`
  }
  const timeout = findTimeout === undefined ? undefined : Duration.fromInput(findTimeout)
  return timeout !== undefined && !(Option.isSome(timeout) && Duration.toMillis(timeout.value) > 0)
    ? `findTimeout: expected a duration above zero, got ${Canonical.shortened(findTimeout)}`
    : switchProblem("requirePeers", requirePeers)
}

function isNamespace(given: unknown): boolean {
  return Predicate.isReadonlyObject(given) && typeof given["name"] === "string" &&
    ["check", "decode", "seal"].every((member) => typeof given[member] === "function")
}
