/**
 * Values of kad-dht under the rules of their namespaces. [libp2p]
 *
 * kad-dht's server checks a value and then stores it over whatever it had, so an old value would undo a newer one. Its handler for puts is
 * wrapped in the instance; what this leans on is asserted when it is attached.
 */
import type { PeerId } from "@libp2p/interface"
import type { KadDHTInit } from "@libp2p/kad-dht"
import { Libp2pRecord } from "@libp2p/record"
import { Effect } from "effect"
import type { ValueRules } from "../schema/ValueNamespace.ts"
import type { KadInternals, KadMessage } from "./KadKeys.ts"
import { rulesOf, sameBytes } from "./Values.ts"

/** The parts of kad-dht's class that are used here, and that its interface leaves out. */
export interface KadValueInternals {
  readonly contentFetching: { readonly getLocal: (key: Uint8Array) => Promise<{ readonly value: Uint8Array }> }
  readonly rpc: KadInternals["rpc"]
}

/** The validators and selectors of kad-dht for the namespaces. */
export const valueRules = (
  namespaces: ReadonlyArray<ValueRules>
): Required<Pick<KadDHTInit, "validators" | "selectors">> => {
  const validators: NonNullable<KadDHTInit["validators"]> = {}
  const selectors: NonNullable<KadDHTInit["selectors"]> = {}
  for (const { name } of namespaces) {
    validators[name] = (key, value) => Effect.runPromise(check(namespaces, key, value))
    selectors[name] = (key, values) => Effect.runPromise(best(namespaces, key, values))
  }
  return { validators, selectors }
}

/**
 * Lets a kad-dht refuse a value over which the one that it has wins, as Go's does. Throws when this kad-dht is not made as expected.
 */
export const keepWinners = (kad: KadValueInternals, namespaces: ReadonlyArray<ValueRules>): void => {
  const put = kad.rpc?.handlers?.["PUT_VALUE"]
  if (typeof put?.handle !== "function") throw new Error("this version of kad-dht has no rpc.handlers.PUT_VALUE.handle")
  if (typeof kad.contentFetching?.getLocal !== "function") {
    throw new Error("this version of kad-dht has no contentFetching.getLocal")
  }
  const store = put.handle.bind(put)
  const handle = async (from: PeerId, message: KadMessage) => {
    const { key, value } = Libp2pRecord.deserialize(message.record ?? new Uint8Array())
    if (message.key === undefined || !sameBytes(key, message.key)) throw new Error("the record is of another key")
    const current = await localValue(kad, key)
    const found = rulesOf(namespaces, key)
    if (found !== undefined && current !== undefined) {
      await Effect.runPromise(found.rules.check(found.path, value))
      if (await Effect.runPromise(found.rules.replaces(found.path, current, value))) {
        throw new Error("a value is stored that wins over it")
      }
    }
    return store(from, message)
  }
  // One after the other: each looks at what the one before has stored.
  let last: Promise<unknown> = Promise.resolve()
  kad.rpc.handlers["PUT_VALUE"] = {
    handle: (from, message) => {
      const next = last.then(() => handle(from, message))
      last = next.catch(() => {})
      return next
    }
  }
}

/** What this node has stored under a key, and would serve. */
export const localValue = async (kad: KadValueInternals, key: Uint8Array): Promise<Uint8Array | undefined> => {
  try {
    return (await kad.contentFetching.getLocal(key)).value
  } catch {
    // There is none, or it does not pass.
    return undefined
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function check(namespaces: ReadonlyArray<ValueRules>, key: Uint8Array, value: Uint8Array) {
  const found = rulesOf(namespaces, key)
  return found === undefined
    ? Effect.die(new Error("a value of no namespace that this node knows"))
    : found.rules.check(found.path, value)
}

/** The index of the value that wins. */
const best = Effect.fnUntraced(function*(
  namespaces: ReadonlyArray<ValueRules>,
  key: Uint8Array,
  values: ReadonlyArray<Uint8Array>
) {
  const found = rulesOf(namespaces, key)
  let index = 0
  for (const [other, value] of values.entries()) {
    if (found !== undefined && (yield* found.rules.replaces(found.path, value, values[index]!))) index = other
  }
  return index
})
