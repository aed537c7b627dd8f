/**
 * What each sender has of a store of records that anybody may send, and which sender gives way when the store is full.
 *
 * Ids cost nothing, addresses do. So a sender is weighed by what it has itself or by what its subnet has, whichever is
 * more. When the store is full, the heaviest sender gives way to a lighter one: whoever floods the store pushes out
 * itself, and a sender of few records is left alone.
 */

/** A subnet by which senders are counted. */
export interface Subnet {
  readonly name: string
  /** What its senders have together: records, or parts of the store. */
  weight: number
}

/** The subnets that have something in the store. */
export class Subnets {
  private readonly subnets = new Map<string, Subnet>()

  get(name: string | undefined): Subnet | undefined {
    return name === undefined ? undefined : this.subnets.get(name)
  }

  enter(name: string, weight: number): Subnet {
    let subnet = this.subnets.get(name)
    if (subnet === undefined) {
      subnet = { name, weight: 0 }
      this.subnets.set(name, subnet)
    }
    subnet.weight += weight
    return subnet
  }

  leave(subnet: Subnet, weight: number): void {
    subnet.weight -= weight
    if (subnet.weight <= 0) this.subnets.delete(subnet.name)
  }
}

/** Finds the sender that gives way. */
export interface Heaviest<Sender> {
  /** The heaviest of the senders looked at, if it is at least as heavy as this. */
  readonly atLeast: (weight: number) => Sender | undefined
  /** The sender has left the store. */
  readonly forget: (sender: Sender) => void
}

/**
 * Looks at the next 64 senders each time and remembers the heaviest, so that the search is cheap whatever the number of
 * senders: a sender heavy enough to matter is found within a few records.
 */
export const makeHeaviest = <Sender>(
  senders: ReadonlyMap<string, Sender>,
  weightOf: (sender: Sender) => number
): Heaviest<Sender> => {
  const cursor = cursorOf(senders)
  let heaviest: Sender | undefined
  return {
    atLeast: (weight) => {
      for (let i = 0; i < sampleMax; i++) {
        const key = cursor()
        const sender = key === undefined ? undefined : senders.get(key)
        if (sender === undefined) continue
        if (heaviest === undefined || weightOf(sender) > weightOf(heaviest)) heaviest = sender
      }
      return heaviest === undefined || weightOf(heaviest) < weight ? undefined : heaviest
    },
    forget: (sender) => {
      if (heaviest === sender) heaviest = undefined
    }
  }
}

/**
 * Goes round and round over the keys of a map, which may change meanwhile. The iterator is made at the first call: one
 * that is not moved on keeps all tables from which its map has grown.
 */
export function cursorOf(map: ReadonlyMap<string, unknown>): () => string | undefined {
  let cursor: Iterator<string> | undefined
  return () => {
    let found = cursor?.next()
    if (found === undefined || found.done === true) {
      cursor = map.keys()
      found = cursor.next()
    }
    return found.done === true ? undefined : found.value
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many senders are looked at to find one that gives way. */
const sampleMax = 64
