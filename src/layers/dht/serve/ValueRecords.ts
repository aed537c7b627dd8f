/**
 * Values of others, as a server of the DHT keeps them: in memory, under the rules of their namespaces, each in the
 * record in which it is answered.
 *
 * A put is judged against the value that is stored when its turn comes, so the puts of one key are judged one after the
 * other, in the order in which they came. Puts of different keys are judged side by side: slow rules for one key do not
 * delay the others. The caller gives the time, in milliseconds since the epoch.
 */
import { Bytes, Effect, Semaphore } from "effect"
import { RecordInvalid } from "../../../schema/NetworkError.ts"
import { valueBytesMax, type ValueRules } from "../../../schema/ValueNamespace.ts"
import { keyOf } from "../wire/Nodes.ts"
import { decodeRecord, encodeRecord } from "../wire/Record.ts"
import { rulesOf } from "../values/Values.ts"

export interface ValueRecordsOptions {
  /** How many values there may be. Defaults to 10,000. The value that was put longest ago makes room. */
  readonly recordsMax?: number | undefined
  /**
   * How many bytes their records may have together. Defaults to 32 MiB, which is 4,000 values of the maximum length.
   */
  readonly bytesMax?: number | undefined
  /**
   * How many puts are judged at once, each of another key. Defaults to 16. At most one put of each inbound stream
   * waits.
   */
  readonly judgedMax?: number | undefined
}

/** How long a value is served after its last put: 48 hours, as in Go, Rust and JavaScript. */
const valueMillisMax = 48 * 60 * 60 * 1000

export interface ValueRecords {
  /**
   * Stores the value in a record. Fails when the bytes are no record, or the record of another key; when no namespace
   * of this node has the key, or its rules refuse the value; and when the stored value wins over it.
   */
  readonly put: (key: Uint8Array, record: Uint8Array, now: number) => Effect.Effect<void, RecordInvalid>
  /** The record of a key, as it is sent. */
  readonly get: (key: Uint8Array, now: number) => Uint8Array | undefined
  /** How many values there are, including expired ones that have not made room yet. */
  readonly size: () => number
  /** The bytes of all records. */
  readonly bytes: () => number
}

export const make = (
  namespaces: ReadonlyArray<ValueRules>,
  { bytesMax = 32 * 1024 * 1024, judgedMax = 16, recordsMax = 10_000 }: ValueRecordsOptions = {}
): ValueRecords => {
  // Insertion order, which is (almost) expiry order: the first entry expires first. No BoundedMap, since its limit is
  // one of bytes, too.
  const stored = new Map<string, Stored>()
  const judges = Semaphore.makeUnsafe(judgedMax)
  const turns = new Map<string, Turns>()
  let bytes = 0

  const forget = (key: string) => {
    bytes -= stored.get(key)?.record.length ?? 0
    stored.delete(key)
  }
  const current = (key: string, now: number) => {
    const found = stored.get(key)
    return found !== undefined && now < found.until ? found.record : undefined
  }
  const store = (key: string, record: Uint8Array, now: number) => {
    forget(key)
    stored.set(key, { record, until: now + valueMillisMax })
    bytes += record.length
    for (const [name, { until }] of stored) {
      if (stored.size <= recordsMax && bytes <= bytesMax && now < until) break
      forget(name)
    }
  }

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

  const judge = Effect.fnUntraced(function*(key: Uint8Array, name: string, value: Uint8Array, now: number) {
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
    store(name, encodeRecord({ key, value }, now), now)
  })

  return {
    put: (key, record, now) =>
      Effect.suspend(() => {
        const read = decodeRecord(record)
        if (read === undefined) return Effect.fail(invalid("it is no record"))
        if (!Bytes.Equivalence(read.key, key)) return Effect.fail(invalid("the record is of another key"))
        const name = keyOf(key)
        return inTurn(name, judge(key, name, read.value, now))
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
}

/** The puts of a key that are being judged, or wait. */
interface Turns {
  readonly turn: Semaphore.Semaphore
  puts: number
}

function invalid(detail: string): RecordInvalid {
  return new RecordInvalid({ detail })
}
