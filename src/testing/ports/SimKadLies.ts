/**
 * What a node of `SimKad` may do to others: a server of Kademlia that lies.
 */
import { multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { base58btc } from "multiformats/bases/base58"
import {
  decodeMessage,
  encodeFrame,
  encodePeer,
  FrameReader,
  type Message,
  MessageType
} from "../../layers/dht/wire/Message.ts"
import { compareDistance, type Position, positionOf } from "../../layers/dht/wire/Position.ts"
import type { AnswerFrame, Server } from "../../layers/dht/serve/Server.ts"
import { peerIdOf } from "../network/SimNames.ts"
import { SimNetwork } from "../network/SimNetwork.ts"

/** How a node may lie. */
export interface SimKadLies {
  /** Takes the records of others as if it stored them, and stores none. Defaults to false. */
  readonly withholds?: boolean | undefined
  /** Names the 20 nearest of these when it is asked for closer nodes. Defaults to the nodes that it knows. */
  readonly names?: ReadonlyArray<string> | undefined
  /** Names these as the providers of every key. Defaults to the providers of its records. */
  readonly providers?: ReadonlyArray<string> | undefined
}

/** A server that answers as the given one, but for these lies. */
export const lying = (server: Server, { names, providers, withholds = false }: SimKadLies): Server => {
  const named = names?.map(placed)
  const invented = providers?.map((name) => placed(name).body)

  const bent = (message: Message, frame: AnswerFrame): AnswerFrame => {
    if (frame === undefined) return undefined
    const [truth] = messagesIn(frame)
    if (truth === undefined || message.key === undefined) return frame
    const { key, record, type } = truth
    return encodeFrame({
      type,
      key,
      record,
      closer: named === undefined ? bodiesOf(truth.closer) : nearestOf(named, positionOf(message.key)),
      providers: invented === undefined || type !== MessageType.GET_PROVIDERS ? bodiesOf(truth.providers) : invented
    })
  }

  return {
    answer: (message, from) => {
      const { key, record, type } = message
      if (withholds && type === MessageType.ADD_PROVIDER) return undefined
      // A node that has stored a value sends it back.
      if (withholds && type === MessageType.PUT_VALUE) return encodeFrame({ type, key, record })
      const answer = server.answer(message, from)
      if (named === undefined && invented === undefined) return answer
      return Effect.isEffect(answer) ? Effect.map(answer, (frame) => bent(message, frame)) : bent(message, answer)
    }
  }
}

/** The messages of some whole frames. */
export const messagesIn = (frames: Uint8Array): ReadonlyArray<Message> => {
  const messages: Array<Message> = []
  new FrameReader().push(frames, (body) => messages.push(decodeMessage(body)))
  return messages
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Placed {
  readonly position: Position
  /** As the body of a Peer in a message. */
  readonly body: Uint8Array
}

const namedMax = 20

const placed = (name: string): Placed => {
  const bytes = base58btc.baseDecode(peerIdOf(name))
  return { position: positionOf(bytes), body: encodePeer(bytes, [multiaddr(SimNetwork.address(name)).bytes]) }
}

const nearestOf = (nodes: ReadonlyArray<Placed>, target: Position): ReadonlyArray<Uint8Array> =>
  nodes.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, namedMax).map(({ body }) => body)

const bodiesOf = (peers: Message["closer"]): ReadonlyArray<Uint8Array> =>
  peers.map(({ addresses, id }) => encodePeer(id, addresses))
