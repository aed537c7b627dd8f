/**
 * Connections of the simulated network, below the transport: how long a message takes from one node to the other, and
 * whether it arrives.
 */
import type { PeerId, ProtocolId, RemoteIdentity } from "../../schema/Peer.ts"
import type { After, SimMachine } from "./SimMachine.ts"

/** The messages between simulated transports. */
export type SimMessage =
  | { readonly _tag: "Hello"; readonly peer: PeerId }
  | { readonly _tag: "Finish"; readonly peer: PeerId; readonly identity: RemoteIdentity }
  | { readonly _tag: "Identify"; readonly identity: RemoteIdentity }
  | { readonly _tag: "Open"; readonly stream: number; readonly protocol: ProtocolId }
  | { readonly _tag: "Accept"; readonly stream: number }
  | { readonly _tag: "Unsupported"; readonly stream: number }
  | { readonly _tag: "Data"; readonly stream: number; readonly bytes: Uint8Array }
  | { readonly _tag: "Credit"; readonly stream: number; readonly bytes: number }
  | { readonly _tag: "End"; readonly stream: number }
  | { readonly _tag: "Reset"; readonly stream: number }
  | { readonly _tag: "Ping"; readonly ping: number }
  | { readonly _tag: "Pong"; readonly ping: number }

/**
 * One end of a line between two nodes. Messages arrive in order, and before the hang-up that follows them.
 */
export interface LineEnd {
  readonly send: (message: SimMessage) => void
  /** Ends the line; nothing more arrives at this end. */
  readonly hangUp: (reason: string) => void
  /** Tells the switchboard that the two nodes are connected. */
  readonly established: () => void
  onMessage: (message: SimMessage) => void
  /** The other end hung up, or the line broke. Called once, and not after this end has hung up. */
  onHangUp: (reason: string) => void
}

export interface End extends LineEnd {
  isClosed: boolean
}

export interface Line {
  readonly peers: readonly [PeerId, PeerId]
  readonly near: End
  readonly far: End
  isEstablished: boolean
  /** One of the two nodes has moved: nothing passes any more. */
  isStray: boolean
  /** Runs a task at the far end, delivered as a message is. */
  readonly callOut: (task: () => void) => void
  /** Breaks on both sides at once. */
  readonly cut: (reason: string) => void
  /** The peer is gone: its own end is told at once, the other end when the message has arrived. */
  readonly leave: (peer: PeerId, reason: string, remoteReason: string) => void
  readonly wake: () => void
}

/** One direction between two nodes, shared by all connections between them. */
export interface Link {
  latencyMillis: number
  jitterMillis: number
  loss: number
  /** Infinity means no limit. */
  bytesPerMilli: number
  /** When the last byte that was sent has left. */
  busyUntil: number
}

/** What a line needs of the switchboard. */
export interface Switchboard {
  readonly now: () => number
  readonly after: After
  readonly chance: () => number
  readonly link: (from: PeerId, to: PeerId) => Link
  readonly machine: (peer: PeerId) => SimMachine
  readonly isBlocked: (from: PeerId, to: PeerId) => boolean
  /** Runs the task after the tasks that are running. */
  readonly deliver: (task: () => void) => void
  readonly established: () => void
  readonly dropped: (line: Line) => void
}

/** The detail of the hang-up when a line is cut. */
export const lost = "the connection was lost"

/** How long the next message takes over a link when nothing is queued before it; undefined when it never arrives. */
export const sample = (link: Link, chance: () => number): number | undefined => {
  // Whole milliseconds: clocks do not sleep in smaller steps.
  let millis = Math.round(link.latencyMillis + (link.jitterMillis === 0 ? 0 : chance() * link.jitterMillis))
  if (link.loss > 0) {
    for (let losses = 0; chance() < link.loss; losses++) {
      if (losses === lossesMax) return undefined
      millis += retransmissionMillis * 2 ** losses
    }
  }
  return millis
}

/**
 * How many milliseconds some messages, one after the other, take over a link at most: with all jitter, the window of
 * one stream queued before them, and so many losses as one message in a million has.
 */
export const slowestMillis = ({ bytesPerMilli, jitterMillis, latencyMillis, loss }: Link, messages: number): number => {
  const losses = loss === 0 ? 0 : Math.min(lossesMax, Math.ceil(Math.log(1e-6) / Math.log(loss) - 1e-9))
  const queued = windowBytes / bytesPerMilli
  return messages * (latencyMillis + jitterMillis) + retransmissionMillis * (2 ** losses - 1) + queued
}

export const makeLine = (board: Switchboard, from: PeerId, to: PeerId): Line => {
  const makeEnd = (lane: Lane, back: Lane, other: () => End): End => {
    const end: End = {
      isClosed: false,
      onMessage: () => {},
      onHangUp: () => {},
      send(message) {
        if (end.isClosed) return
        lane.send(message._tag === "Data" ? message.bytes.length + headerBytes : headerBytes, () => {
          if (!other().isClosed) other().onMessage(message)
        })
      },
      hangUp(reason) {
        if (end.isClosed) return
        end.isClosed = true
        back.clear()
        if (other().isClosed) return drop()
        lane.send(headerBytes, () => {
          if (other().isClosed) return
          other().isClosed = true
          drop()
          other().onHangUp(reason)
        })
      },
      established() {
        line.isEstablished = true
        board.established()
      }
    }
    return end
  }
  const drop = () => {
    outward.clear()
    inward.clear()
    board.dropped(line)
  }
  const broken = () => line.cut("the connection broke: too many losses in a row")
  const isStray = () => line.isStray
  const outward = makeLane(board, from, to, isStray, broken)
  const inward = makeLane(board, to, from, isStray, broken)
  const near: End = makeEnd(outward, inward, () => far)
  const far: End = makeEnd(inward, outward, () => near)
  const line: Line = {
    peers: [from, to],
    near,
    far,
    isEstablished: false,
    isStray: false,
    callOut: (task) => outward.send(headerBytes, task),
    cut(reason) {
      for (const end of [near, far]) {
        if (end.isClosed) continue
        end.isClosed = true
        board.machine(end === near ? from : to).receive(() => board.deliver(() => end.onHangUp(reason)))
      }
      drop()
    },
    leave(peer, reason, remoteReason) {
      const end = peer === from ? near : far
      if (end.isClosed) return
      end.hangUp(remoteReason)
      board.deliver(() => end.onHangUp(reason))
    },
    wake() {
      outward.wake()
      inward.wake()
    }
  }
  return line
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const lossesMax = 8
const retransmissionMillis = 200
// What a stream sends at most before the remote has read it.
const windowBytes = 256 * 1024
// TCP, IP and framing, roughly.
const headerBytes = 80
// After a jittered delay a virtual clock stands at fractions of a millisecond, whose sums have rounding errors. A
// message counts as due this much before its time.
const roundingMillis = 0.001

/** One direction of a line. */
interface Lane {
  readonly send: (bytes: number, task: () => void) => void
  readonly clear: () => void
  readonly wake: () => void
}

function makeLane(board: Switchboard, from: PeerId, to: PeerId, isStray: () => boolean, broken: () => void): Lane {
  const link = board.link(from, to)
  const machine = board.machine(to)
  const waiting: Array<{ readonly at: number; readonly task: () => void }> = []
  let cancel: (() => void) | undefined
  let last = 0
  const isBlocked = () => isStray() || board.isBlocked(from, to)
  const receive = (task: () => void) => machine.receive(() => board.deliver(task))
  const isDue = (at: number) => at <= board.now() + roundingMillis
  const pump = () => {
    cancel = undefined
    while (waiting.length > 0 && isDue(waiting[0]!.at) && !isBlocked()) receive(waiting.shift()!.task)
    wake()
  }
  const wake = () => {
    if (cancel !== undefined || waiting.length === 0 || isBlocked()) return
    const { at } = waiting[0]!
    // The same question as above: were the two rounded apart, one would call the other without end.
    if (isDue(at)) pump()
    else cancel = board.after(waitUntil(at, board.now()), pump)
  }
  return {
    wake,
    clear() {
      waiting.length = 0
      cancel?.()
      cancel = undefined
    },
    send(bytes, task) {
      const millis = sample(link, board.chance)
      if (millis === undefined) return broken()
      const now = board.now()
      link.busyUntil = Math.max(link.busyUntil, now) + bytes / link.bytesPerMilli
      const at = Math.max(last, link.busyUntil + millis)
      last = at
      if (at <= now && waiting.length === 0 && !isBlocked()) return receive(task)
      waiting.push({ at, task })
      wake()
    }
  }
}

const waitUntil = (at: number, now: number): number => {
  const wait = Math.round((at - now) * 1e6) / 1e6
  return now + wait > at ? wait - roundingMillis / 2 : wait
}
