/**
 * Values of others, as a server of the DHT keeps them: in memory, under the rules of their namespaces, each in the
 * record in which it is answered.
 *
 * A put is judged against the value that is stored when its turn comes, so the puts of one key are judged one after the
 * other, in the order in which they came. Puts of different keys are judged side by side: slow rules for one key do not
 * delay the others. The caller gives the time, in milliseconds of the monotonic clock.
 *
 * Anybody may put values, so each sender has a share of the store, and so has each subnet (`Shares`). A sender over its
 * share replaces its own oldest value. A full store makes room at the cost of the heaviest sender, and refuses a value
 * whose sender is heavier than all others. The values of this node itself have no limit and make room for no others.
 *
 * A value belongs to the sender that put it first. When that sender lets it go, for others of its own or because it is
 * the heaviest, the value passes to the next of up to three others that have put it. So a stranger who puts what
 * somebody else has put cannot let it go as the oldest of its own.
 */
import { Bytes, Clock, Effect, Semaphore } from "effect"
import { RecordInvalid } from "../../../schema/NetworkError.ts"
import { valueBytesMax, type ValueRules } from "../../../schema/ValueNamespace.ts"
import { keyOf } from "../wire/Nodes.ts"
import { decodeRecord, encodeRecord } from "../wire/Record.ts"
import { rulesOf } from "../values/Values.ts"
import * as Shares from "./Shares.ts"

export interface ValueRecordsOptions {
  /** How many values there may be. Defaults to 10,000. */
  readonly recordsMax?: number | undefined
  /**
   * How many bytes their records may have together. Defaults to 32 MiB, which is 4,000 values of the maximum length.
   */
  readonly bytesMax?: number | undefined
  /**
   * How much of the store one sender may have; more replaces its oldest value. Counted in values, where a long one
   * counts as several: each as the part of `recordsMax` or of `bytesMax` that it takes, whichever is more. Defaults to
   * half of `recordsMax`.
   */
  readonly perSenderMax?: number | undefined
  /** How much the senders of one subnet may have together, where the subnet is given. Defaults to half as well. */
  readonly perSubnetMax?: number | undefined
  /**
   * How many puts are judged at once, each of another key. Defaults to 16. At most one put of each inbound stream
   * waits.
   */
  readonly judgedMax?: number | undefined
}

/** How long a value is served after its last put: 48 hours, as in Go, Rust and JavaScript. */
const valueMillisMax = 48 * 60 * 60 * 1000

/** Who puts a value. */
export interface ValueSender {
  /** Tells senders apart. */
  readonly key: string
  /** The subnet by which the sender is counted; undefined when it is not. */
  readonly subnet: string | undefined
}

export interface ValueRecords {
  /**
   * Stores the value in a record. Fails when the bytes are no record, or the record of another key; when no namespace
   * of this node has the key, or its rules refuse the value; when the stored value wins over it; and when the subnet of
   * the sender has its share, or the store is full of others' values. Without a sender the value is this node's own.
   */
  readonly put: (
    key: Uint8Array,
    record: Uint8Array,
    now: number,
    sender?: ValueSender
  ) => Effect.Effect<void, RecordInvalid>
  /** The record of a key, as it is sent. */
  readonly get: (key: Uint8Array, now: number) => Uint8Array | undefined
  /** How many values there are, including expired ones that have not made room yet. */
  readonly size: () => number
  /** The bytes of all records. */
  readonly bytes: () => number
}

export const make = (
  namespaces: ReadonlyArray<ValueRules>,
  { bytesMax = 32 * 1024 * 1024, judgedMax = 16, recordsMax = 10_000, ...shares }: ValueRecordsOptions = {}
): ValueRecords => {
  const { perSenderMax = Math.ceil(recordsMax / 2), perSubnetMax = Math.ceil(recordsMax / 2) } = shares
  // Insertion order, which is (almost) expiry order: the first entry expires first. No BoundedMap, since its limit is
  // one of bytes, too.
  const stored = new Map<string, Stored>()
  const judges = Semaphore.makeUnsafe(judgedMax)
  const turns = new Map<string, Turns>()
  let bytes = 0

  /** This node itself. */
  const own: Sender = { key: "", names: new Set(), weight: 0, subnetName: undefined, subnet: undefined }
  const senders = new Map<string, Sender>()
  const subnets = new Shares.Subnets()
  const weightOf = ({ subnet, weight }: Sender) => Math.max(weight, subnet?.weight ?? 0)
  const heaviest = Shares.makeHeaviest(senders, weightOf)
  /** What a record takes of the store. */
  const partOf = (record: Uint8Array) => Math.max(1, Math.ceil(record.length * recordsMax / bytesMax))

  /** The value counts as the sender's from here on. */
  const take = (name: string, record: Uint8Array, sender: Sender) => {
    const weight = partOf(record)
    if (sender !== own) senders.set(sender.key, sender)
    // Anew, since the subnet leaves with the last value of its senders.
    if (sender.subnetName !== undefined) sender.subnet = subnets.enter(sender.subnetName, weight)
    sender.names.add(name)
    sender.weight += weight
  }
  const release = (name: string, { record, sender }: Stored) => {
    const weight = partOf(record)
    sender.names.delete(name)
    sender.weight -= weight
    if (sender.subnet !== undefined) subnets.leave(sender.subnet, weight)
    if (sender.names.size > 0 || sender === own) return
    senders.delete(sender.key)
    heaviest.forget(sender)
  }
  const forget = (name: string) => {
    const gone = stored.get(name)
    if (gone === undefined) return
    stored.delete(name)
    bytes -= gone.record.length
    release(name, gone)
  }
  /** The sender lets the value go, and it passes to the next that has put it and has room for it in its share. */
  const letGo = (name: string) => {
    const gone = stored.get(name)
    if (gone === undefined) return
    const weight = partOf(gone.record)
    const [next, ...others] = gone.others
      .map((other) => senders.get(other.key) ?? other)
      .filter((other) => other === own || other.weight + weight <= perSenderMax)
    if (next === undefined) return forget(name)
    release(name, gone)
    take(name, gone.record, next)
    stored.set(name, { ...gone, sender: next, others })
  }
  const current = (key: string, now: number) => {
    const found = stored.get(key)
    return found !== undefined && now < found.until ? found.record : undefined
  }

  /** The sender as it is counted from here on: all its values move to its subnet of this moment. */
  const senderOf = (given: ValueSender | undefined): Sender => {
    if (given === undefined) return own
    const { key, subnet } = given
    const sender = senders.get(key)
    if (sender === undefined) {
      return { key, names: new Set(), weight: 0, subnetName: subnet, subnet: subnets.get(subnet) }
    }
    if (sender.subnetName === subnet) return sender
    if (sender.subnet !== undefined) subnets.leave(sender.subnet, sender.weight)
    sender.subnetName = subnet
    sender.subnet = subnet === undefined ? undefined : subnets.enter(subnet, sender.weight)
    return sender
  }
  /** All who have put the value, the first one first, this node before others. */
  const ownersOf = (before: Stored | undefined, from: Sender): readonly [Sender, ...Array<Sender>] => {
    if (before === undefined) return [from]
    const [first, ...others] = [before.sender, ...before.others].filter(({ key }) => key !== from.key)
    if (first === undefined) return [from]
    return from === own || before.sender.key === from.key ? [from, first, ...others] : [first, ...others, from]
  }
  /** Makes room for a value of the sender. False when nobody else is as heavy. */
  const makeRoom = (sender: Sender): boolean => {
    const other = heaviest.atLeast(sender === own ? 0 : weightOf(sender)) ?? (sender === own ? own : undefined)
    const [oldest] = other?.names ?? []
    if (oldest !== undefined) letGo(oldest)
    return oldest !== undefined
  }

  const store = (name: string, record: Uint8Array, now: number, from: Sender): Effect.Effect<void, RecordInvalid> => {
    for (const [other, { until }] of stored) {
      if (now < until) break
      forget(other)
    }
    const before = stored.get(name)
    const [sender, ...others] = ownersOf(before, from)
    const weight = partOf(record)
    const grows = weight - (before?.sender === sender ? partOf(before.record) : 0)
    if (sender !== own && sender.weight + grows > perSenderMax) {
      // Its other values, the oldest first.
      for (const other of sender.names) {
        if (sender.weight + grows <= perSenderMax) break
        if (other !== name) letGo(other)
      }
    } else if (grows > 0 && sender.subnet !== undefined && sender.subnet.weight + grows > perSubnetMax) {
      return Effect.fail(invalid("its sender's subnet has its share of the values of this node"))
    }
    while (stored.size + (stored.has(name) ? 0 : 1) > recordsMax || bytes + record.length - lengthOf(name) > bytesMax) {
      if (!makeRoom(sender)) return Effect.fail(invalid("this node has no room for more values of its sender"))
    }
    forget(name)
    take(name, record, sender)
    stored.set(name, { record, until: now + valueMillisMax, sender, others: others.slice(0, othersMax) })
    bytes += record.length
    return Effect.void
  }
  const lengthOf = (name: string) => stored.get(name)?.record.length ?? 0

  /**
   * Judges the puts of a key one after the other. A put that waits for its key does not count against `judgedMax`. A
   * `PartitionedSemaphore` would share the permits between keys, but judge puts of one key side by side.
   */
  const inTurn = <A, E>(name: string, judged: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const ofKey = turns.get(name) ?? { turn: Semaphore.makeUnsafe(1), puts: 0 }
        turns.set(name, ofKey)
        ofKey.puts++
        return ofKey
      }),
      ({ turn }) => turn.withPermits(1)(judges.withPermits(1)(judged)),
      (ofKey) =>
        Effect.sync(() => {
          if (--ofKey.puts === 0) turns.delete(name)
        })
    )

  const judge = Effect.fnUntraced(function*(
    key: Uint8Array,
    name: string,
    value: Uint8Array,
    now: number,
    sender: ValueSender | undefined
  ) {
    const found = rulesOf(namespaces, key)
    if (found === undefined) return yield* invalid("its key is in no namespace that this node knows")
    if (value.length > valueBytesMax) {
      return yield* invalid(`its value of ${value.length} bytes is over the limit of ${valueBytesMax}`)
    }
    const { path, rules } = found
    yield* rules.check(path, value)
    const present = current(name, now)
    if (present !== undefined && (yield* rules.replaces(path, decodeRecord(present)!.value, value))) {
      return yield* invalid("a value is stored that wins over it")
    }
    // Copied: the bytes are views of the message.
    yield* store(name, encodeRecord({ key, value }, yield* Clock.currentTimeMillis), now, senderOf(sender))
  })

  return {
    put: (key, record, now, sender) =>
      Effect.suspend(() => {
        const read = decodeRecord(record)
        if (read === undefined) return Effect.fail(invalid("it is no record"))
        if (!Bytes.Equivalence(read.key, key)) return Effect.fail(invalid("the record is of another key"))
        const name = keyOf(key)
        return inTurn(name, judge(key, name, read.value, now, sender))
      }),
    get: (key, now) => current(keyOf(key), now),
    size: () => stored.size,
    bytes: () => bytes
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Stored {
  readonly record: Uint8Array
  readonly until: number
  readonly sender: Sender
  /** Others that have put it, the first one first. */
  readonly others: ReadonlyArray<Sender>
}

/** How many others are remembered that have put a value: a stranger with many ids fills no memory. */
const othersMax = 3

/** A sender of values that are stored. */
interface Sender {
  readonly key: string
  /** The keys of its values, the value put longest ago first. */
  readonly names: Set<string>
  weight: number
  subnetName: string | undefined
  subnet: Shares.Subnet | undefined
}

/** The puts of a key that are being judged, or wait. */
interface Turns {
  readonly turn: Semaphore.Semaphore
  puts: number
}

function invalid(detail: string): RecordInvalid {
  return new RecordInvalid({ detail })
}
