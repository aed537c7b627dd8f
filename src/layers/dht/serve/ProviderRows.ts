/**
 * Provider records and their providers as rows of columns, for `ProviderRecords`. An object for each would take as much
 * memory for its header alone as a row.
 *
 * A row is a number. `give` returns a row, whose number is then taken again; do not keep it.
 */
import { Bytes } from "effect"
import { keyOf } from "../wire/Nodes.ts"
import type { Subnet } from "./Shares.ts"

/** No row. */
export const none = -1

/** The records. Each is in two lists: the records of its key and the records of its provider. */
export class RecordRows {
  /** The names of the keys. */
  key: Array<string> = []
  provider = new Int32Array(0)
  /** When it expires, in seconds from the first call. */
  until = new Int32Array(0)
  /** The next record of the key. In a free row: the next free row. */
  next = new Int32Array(0)
  /** The records that the provider announced before and after this one. */
  older = new Int32Array(0)
  newer = new Int32Array(0)
  private readonly max: number
  private used = 0
  private free = none

  /** `max` is how many rows there may be. */
  constructor(max: number) {
    this.max = max
  }

  take(): number {
    const row = this.free
    if (row !== none) {
      this.free = this.next[row]!
      return row
    }
    if (this.used === this.next.length) {
      const length = nextLength(this.used, this.max)
      this.key = listGrown(this.key, length)
      this.provider = grown(this.provider, length)
      this.until = grown(this.until, length)
      this.next = grown(this.next, length)
      this.older = grown(this.older, length)
      this.newer = grown(this.newer, length)
    }
    return this.used++
  }

  give(row: number): void {
    this.key[row] = ""
    this.next[row] = this.free
    this.free = row
  }
}

/** The providers. */
export class ProviderRows {
  /** As latin1. */
  id: Array<string> = []
  /** The body as latin1, without the id where that comes first; undefined while the provider has none. */
  rest: Array<string | undefined> = []
  /** Whether the id comes first in the body, and is left out of `rest`. */
  hasId = new Uint8Array(0)
  subnet: Array<Subnet | undefined> = []
  /** How many records the provider has. It leaves with the last. */
  records = new Int32Array(0)
  /** The ends of its list of records. In a free row `oldest` is the next free row. */
  oldest = new Int32Array(0)
  newest = new Int32Array(0)
  private readonly max: number
  private used = 0
  private free = none

  /** `max` is how many rows there may be. */
  constructor(max: number) {
    this.max = max
  }

  take(id: string): number {
    let row = this.free
    if (row !== none) this.free = this.oldest[row]!
    else {
      row = this.used++
      if (row === this.oldest.length) {
        const length = nextLength(row, this.max)
        this.id = listGrown(this.id, length)
        this.rest = listGrown(this.rest, length)
        this.subnet = listGrown(this.subnet, length)
        this.hasId = grown(this.hasId, length)
        this.records = grown(this.records, length)
        this.oldest = grown(this.oldest, length)
        this.newest = grown(this.newest, length)
      }
    }
    this.id[row] = id
    this.records[row] = 0
    this.oldest[row] = this.newest[row] = none
    return row
  }

  give(row: number): void {
    this.id[row] = ""
    this.rest[row] = this.subnet[row] = undefined
    this.oldest[row] = this.free
    this.free = row
  }

  /** Sets the body of a provider, a Peer message. Its id is stored only once. */
  setBody(row: number, id: Uint8Array, body: Uint8Array): void {
    const end = headBytes + id.length
    const hasId = body[0] === idTag && body[1] === id.length && Bytes.Equivalence(body.subarray(headBytes, end), id)
    const rest = keyOf(hasId ? body.subarray(end) : body)
    this.hasId[row] = hasId ? 1 : 0
    if (this.rest[row] !== rest) this.rest[row] = rest
  }

  bodyOf(row: number): Uint8Array | undefined {
    const rest = this.rest[row]
    if (rest === undefined) return undefined
    if (this.hasId[row] === 0) return Buffer.from(rest, "latin1")
    const id = this.id[row]!
    const body = Buffer.allocUnsafe(headBytes + id.length + rest.length)
    body[0] = idTag
    body[1] = id.length
    body.write(id, headBytes, "latin1")
    body.write(rest, headBytes + id.length, "latin1")
    return body
  }

  /** How many records the provider has, or its subnet if that has more. */
  weightOf(row: number): number {
    return Math.max(this.records[row]!, this.subnet[row]?.weight ?? 0)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const lengthMin = 16

const nextLength = (length: number, max: number): number => Math.min(max, Math.max(lengthMin, 2 * length))

function grown<A extends Int32Array | Uint8Array>(column: A, length: number): A {
  const next = new (column.constructor as new(length: number) => A)(length)
  next.set(column)
  return next
}

// V8 turns an array into a dictionary when its length is set beyond its end.
function listGrown<T>(list: ReadonlyArray<T>, length: number): Array<T> {
  return Array.from({ length }, (_, index) => list[index] as T)
}

/** A Peer message begins with the tag of its id and the length of the id, which is below 128 and so has one byte. */
const idTag = 0x0a
const headBytes = 2
