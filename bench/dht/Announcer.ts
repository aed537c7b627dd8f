/**
 * A provider of keys, the same for every network that is measured. It serves no Kademlia, so that it is in no routing
 * table and is never asked, and it sends its records to the nodes of the crowd only: the measured node holds none of
 * them.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import { peerIdFromString } from "@libp2p/peer-id"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { createLibp2p } from "libp2p"
import { createHash } from "node:crypto"
import { kadProtocol } from "./BenchNode.ts"

export interface Member {
  readonly peer: string
  readonly address: string
}

/** How many copies a record has. */
const copies = 20

const node = await createLibp2p({
  addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionManager: { maxConnections: 1_000, maxParallelDials: 16 },
  connectionMonitor: { enabled: false },
  services: { identify: identify() }
})
const own = node.peerId.toMultihash().bytes
const self = Buffer.concat([field(1, own), ...node.getMultiaddrs().map(({ bytes }) => field(2, bytes))])

/** Sends a record for each key to the nodes of the crowd that are closest to it, and waits until each has read it. */
export const announce = async (
  crowd: ReadonlyArray<Member>,
  keys: ReadonlyArray<Uint8Array>,
  /** Whether the nodes name a provider to itself. Nodes of Rust do not. */
  namesAsker: boolean
): Promise<void> => {
  const takers = new Map<string, Array<Uint8Array>>()
  for (const key of keys) {
    for (const { address } of closest(crowd, key)) takers.set(address, [...takers.get(address) ?? [], key])
  }
  const waiting = [...takers]
  await Promise.all(Array.from({ length: 4 }, async () => {
    for (let taker = waiting.pop(); taker !== undefined; taker = waiting.pop()) await tell(...taker, namesAsker)
  }))
}

/** The nodes whose ids are closest to the key. */
export const closest = (crowd: ReadonlyArray<Member>, key: Uint8Array): ReadonlyArray<Member> => {
  const target = sha256(key)
  return crowd.map((member) => {
    const position = sha256(bytesOf(member))
    return { member, distance: position.map((byte, index) => byte ^ target[index]!) }
  }).sort((a, b) => Buffer.compare(a.distance, b.distance)).slice(0, copies).map(({ member }) => member)
}

/** The bytes of a node's id, which as a key have the position of the node. */
export const bytesOf = ({ peer }: Member): Uint8Array => peerIdFromString(peer).toMultihash().bytes

export const stop = async (): Promise<void> => {
  await node.stop()
}

// internal ------------------------------------------------------------------------------------------------------------

// ADD_PROVIDER has no answer; the answer to the GET_PROVIDERS behind it shows that it was read.
async function tell(address: string, keys: ReadonlyArray<Uint8Array>, namesAsker: boolean): Promise<void> {
  const stream = await node.dialProtocol(multiaddr(address), kadProtocol)
  for (const key of keys) {
    const frames = [[type(2), field(2, key), field(9, self)], [type(3), field(2, key)]].map((fields) => {
      const message = Buffer.concat(fields)
      return Buffer.concat([varint(message.length), message])
    })
    const answer = read(stream)
    stream.send(Buffer.concat(frames))
    if (namesAsker && !(await answer).includes(Buffer.from(own))) throw new Error(`${address} has not stored a record`)
    await answer
  }
  await stream.close()
}

/** The next message, to be asked for only when the one before has arrived. */
function read(stream: Awaited<ReturnType<typeof node.dialProtocol>>): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let got = Buffer.alloc(0)
    const done = () => {
      stream.removeEventListener("message", message)
      stream.removeEventListener("close", close)
    }
    const message = (event: { readonly data: Uint8Array | { readonly subarray: () => Uint8Array } }) => {
      got = Buffer.concat([got, event.data.subarray()])
      let length = 0
      for (let at = 0, shift = 0; at < got.length; at++, shift += 7) {
        length |= (got[at]! & 0x7f) << shift
        if (got[at]! >= 0x80) continue
        if (got.length < at + 1 + length) return
        done()
        return resolve(got.subarray(at + 1))
      }
    }
    const close = () => {
      done()
      reject(new Error("the stream closed before the answer"))
    }
    stream.addEventListener("message", message)
    stream.addEventListener("close", close)
  })
}

// Messages are protobuf: their type is field 1, a number; the fields here are bytes.
function type(number: number): Uint8Array {
  return Uint8Array.of(0x08, number)
}

function field(number: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(number << 3 | 2), varint(value.length), value])
}

function varint(value: number): Uint8Array {
  const bytes: Array<number> = []
  for (; value >= 0x80; value >>>= 7) bytes.push(value & 0x7f | 0x80)
  return Uint8Array.of(...bytes, value)
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest()
}
