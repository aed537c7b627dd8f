/**
 * Provider records and their providers as rows of columns: what `ProviderRecords` keeps, without an object for each, of which the head alone
 * takes as much as a row.
 *
 * A row is a number. One that is given back is given out again, so whoever keeps its number has to forget it then.
 */
import { Bytes } from "effect"
import { keyOf } from "../wire/Nodes.ts"

/** No row. */
export const none = -1

/** The records: each in the list of its key, and in that of its provider. */
export class RecordRows {
  /** The names of the keys. */
  key: Array<string> = []
  provider = new Int32Array(0)
  /** In seconds from the first call; it is served before. */
  until = new Int32Array(0)
  /** The next one of the key. Of rows that are free the next that is. */
  next = new Int32Array(0)
  /** Those of the provider that it announced before and after this one. */
  older = new Int32Array(0)
  newer = new Int32Array(0)
  private readonly max: number
  private used = 0
  private free = none

  /** At most so many. */
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
  /** As latin1, and so what is known of it. */
  id: Array<string> = []
  /** Its body, or what of it is behind its id; undefined while it has none. */
  rest: Array<string | undefined> = []
  /** Whether the id is in front of that. */
  hasId = new Uint8Array(0)
  subnet: Array<Subnet | undefined> = []
  /** How many records name it: it goes with the last. */
  records = new Int32Array(0)
  /** The ends of its list. Of rows that are free the oldest is the next that is free. */
  oldest = new Int32Array(0)
  newest = new Int32Array(0)
  private readonly max: number
  private used = 0
  private free = none

  /** At most so many. */
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

  /** The body of a provider, a Peer message, of which the id is kept once. */
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

  /** How many records there are of it, or of its subnet. */
  weightOf(row: number): number {
    return Math.max(this.records[row]!, this.subnet[row]?.records ?? 0)
  }
}

/** A network that records are counted by. */
export interface Subnet {
  readonly name: string
  records: number
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

// Of a list that is made longer by its end V8 makes a dictionary.
function listGrown<T>(list: ReadonlyArray<T>, length: number): Array<T> {
  return Array.from({ length }, (_, index) => list[index] as T)
}

/** A Peer message begins with the tag of its id, and the length of it in one byte, as those below 128 are. */
const idTag = 0x0a
const headBytes = 2
