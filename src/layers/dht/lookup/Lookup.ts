/**
 * The iterative lookup of Kademlia: asks the peers nearest to a target for nearer peers, until the nearest known peers
 * have all answered.
 *
 * It knows nothing of the wire. `ask` sends one question to one peer and does whatever the lookup is for. An asked peer
 * is in one of these states:
 *
 * - *asked*: its answer is awaited. It counts against `parallel`.
 * - *slow*: asked for longer than `slowAfter`. It no longer counts against `parallel`, and the lookup goes on as though
 *   it had failed; if it answers before the end, the answer counts. So a dead peer costs a lookup `slowAfter`, not the
 *   timeout of a question.
 * - *late*: asked for four times as long. The lookup ends without it even if fewer than `count` answered, as long as
 *   somebody did.
 * - *answered*, or *failed*, which passes it over.
 *
 * A *doubtful* peer did not answer lately, or is named by misleading peers alone (`Doubts`). It is asked beside the
 * others: neither `parallel` nor the nearest `count` take it into account until it answers. When all others have
 * answered or are given up, the lookup ends within 50 ms, or twice the time of its slowest answer if that is longer.
 *
 * **Gotchas**: the lookup has no time limit of its own; give each question one. Questions still slow when the lookup
 * ends are interrupted, and not awaited.
 */
import { Cause, Clock, Context, Duration, Effect, Exit, Fiber } from "effect"
import { commonPrefixLength, compareDistance, type Position } from "../wire/Position.ts"
import * as Elapsed from "../../Elapsed.ts"
import type { Doubts } from "./Doubts.ts"

/** What a lookup has to know of a peer. */
export interface LookupPeer {
  /** Tells peers apart. */
  readonly key: string
  readonly position: Position
}

/** What a peer says to a question. */
export interface LookupAnswer<P> {
  /** Peers that it thinks near the target. If there are more than `count`, the nearest are heeded. */
  readonly closer: ReadonlyArray<P>
  /** Ends the lookup: it has found what it is for. */
  readonly enough?: boolean | undefined
}

export interface LookupOptions<P extends LookupPeer, R = never> {
  readonly target: Position
  /** The peers to ask first, in any order. */
  readonly seeds: ReadonlyArray<P>
  /** How many of the nearest peers must have answered. Defaults to 20, Kademlia's k. */
  readonly count?: number | undefined
  /**
   * How many questions are under way at once over all paths, slow ones aside; of those there are at most twice as many.
   * Defaults to 10.
   */
  readonly parallel?: number | undefined
  /**
   * How many questions are sent before answers that have arrived meanwhile are read. Each question costs a write, and
   * on a fast network the first answer is there before ten are written. Unbounded by default.
   */
  readonly together?: number | undefined
  /**
   * How many disjoint paths the lookup takes. Each follows only what its own peers said, so a path that meets liars
   * leaves the others alone (S/Kademlia, section 4.4). Seeds are dealt out to the paths; no peer is asked twice.
   * Defaults to 1.
   */
  readonly paths?: number | undefined
  /**
   * Whether a peer can be asked without a dial. Such peers go first among peers that are about as useful: those of the
   * `count` nearest that share at most 4 leading bits fewer with the target than the nearest peer not asked yet. No
   * peer by default.
   */
  readonly isAtHand?: ((peer: P) => boolean) | undefined
  /** The key of a peer to leave out: this node's own. */
  readonly self?: string | undefined
  /**
   * After how long a question is slow; after twice the time of this lookup's slowest answer if that is longer. Defaults
   * to 500 ms.
   */
  readonly slowAfter?: Duration.Input | undefined
  /**
   * How many peers a lookup asks at most, whatever it is told; each answer adds `count` candidates at most. Defaults to
   * ten times `count`.
   */
  readonly asksMax?: number | undefined
  /**
   * Which peers are doubtful; told which peers named others that did not answer. By default no peer is, and nothing is
   * told.
   */
  readonly doubts?: Pick<Doubts, "isDoubtful" | "isMisleading" | "named"> | undefined
  /**
   * Asks a peer. `rank` is the number of nearer peers known at this moment that have not failed. A failure passes the
   * peer over; a defect ends the lookup with it.
   */
  readonly ask: (peer: P, rank: number) => Effect.Effect<LookupAnswer<P>, unknown, R>
}

export interface LookupResult<P> {
  /** The nearest peers that have answered, at most `count`, nearest first. Empty when no peer has answered. */
  readonly closest: ReadonlyArray<P>
  /** How many peers were asked. */
  readonly asked: number
  /** How many of them have answered. */
  readonly answered: number
  /**
   * The length of the longest chain of answers that led to one of the closest peers, its own answer included. 1 when
   * all were seeds, 0 without an answer.
   */
  readonly hops: number
}

/**
 * Looks up the peers nearest to a target. Never fails: when no seed answers, the result is empty. Interruption
 * interrupts the questions under way and waits for their ends.
 */
export const lookup = <P extends LookupPeer, R = never>(
  options: LookupOptions<P, R>
): Effect.Effect<LookupResult<P>, never, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<LookupResult<P>>((resume) => {
      const run = new Run(options, context, resume)
      run.fill()
      return run.interrupt
    })
  )

/**
 * After how long a question is slow, in milliseconds. A dial and a question over the widest links take about six round
 * trips of 80 ms.
 */
export const slowAfterMillis = 500

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The part of `count` that a lookup asks of the peers that only misleading peers name: each may cost a dial. */
const misledPart = 5

/** How long a lookup waits for doubtful peers after the last answer of another peer, at least. */
const doubtfulMillis = 50

/**
 * A peer that shares so many leading bits fewer than the nearest is no less useful: the closest 20 of a network spread
 * over about as many bits. In a model of 4,000 nodes a lookup asks a twentieth more peers when a third of them is at
 * hand, in as many hops.
 */
const equalBits = 4

/** A slow question is late after this multiple of the time after which it was slow. */
const lateFactor = 4

interface Candidate<P> {
  readonly peer: P
  state: "told" | "asked" | "slow" | "late" | "answered" | "failed"
  readonly hop: number
  /** Who named it first; undefined for a seed. */
  readonly namedBy: P | undefined
  isDoubtful: boolean
  /** Whether it did not answer lately. */
  readonly isSilent: boolean
  /** The path that asks the peer. */
  path: Path<P>
  /** When the peer was asked, in milliseconds. */
  since: number
}

interface Path<P> {
  /** The peers that this path knows, nearest first. Another path may know a peer too, and have asked it. */
  readonly nearest: Array<Candidate<P>>
  /** Questions under way that are not slow. */
  active: number
}

/** One lookup under way. Everything happens in steps of the event loop: `fill` asks, and each answer calls it again. */
class Run<P extends LookupPeer, R> {
  private readonly options: LookupOptions<P, R>
  private readonly count: number
  private readonly parallel: number
  private readonly asksMax: number
  private readonly slowMillis: number
  private readonly clock: Clock.Clock
  private readonly fork: <A, E>(effect: Effect.Effect<A, E, R>) => Fiber.Fiber<A, E>
  private readonly resume: (exit: Exit.Exit<LookupResult<P>>) => void

  private readonly paths: ReadonlyArray<Path<P>>
  private readonly candidates = new Map<string, Candidate<P>>()
  /** In the order of their asking, so that the first that is not slow is the oldest. */
  private readonly underWay = new Map<Candidate<P>, Fiber.Fiber<unknown, unknown>>()
  private asked = 0
  private answered = 0
  private slowestMillis = 0
  private knowsDoubtful = false
  /** How many doubtful peers were asked: silent ones, and those that only misleading peers name. */
  private silentAsked = 0
  private misledAsked = 0
  /** When a peer answered last that is not doubtful, or the first of all. */
  private heardAt = 0
  private timer: Fiber.Fiber<void> | undefined
  private turn: Fiber.Fiber<void> | undefined
  private isFilling = false
  private isDone = false

  constructor(
    options: LookupOptions<P, R>,
    context: Context.Context<R>,
    resume: (exit: Exit.Exit<LookupResult<P>>) => void
  ) {
    this.options = options
    this.count = options.count ?? 20
    this.parallel = options.parallel ?? 10
    this.asksMax = options.asksMax ?? 10 * this.count
    this.slowMillis = options.slowAfter === undefined ? slowAfterMillis : Duration.toMillis(options.slowAfter)
    this.clock = Context.get(context, Clock.Clock)
    this.fork = Effect.runForkWith(context)
    this.resume = resume
    const seeds = options.seeds.toSorted((a, b) => compareDistance(a.position, b.position, options.target))
    const paths = Math.max(1, Math.min(options.paths ?? 1, seeds.length))
    this.paths = Array.from({ length: paths }, () => ({ nearest: [], active: 0 }))
    seeds.forEach((peer, index) => this.tell(this.paths[index % paths]!, peer, 1, undefined))
  }

  /** Asks as many peers as may be asked now, and ends the lookup when there is nothing left to wait for. */
  fill(): void {
    // A question may end in the step that sends it.
    if (this.isFilling) return
    this.isFilling = true
    const most = this.asked + (this.options.together ?? Infinity)
    for (let isMore = true; isMore;) isMore = this.askNext(most)
    this.isFilling = false
    if (this.isDone) return
    if (this.asked >= most) this.rest()
    if ((this.underWay.size === 0 && this.turn === undefined) || this.isEnough()) {
      this.finish(Exit.succeed(this.result()))
    } else {
      this.watch()
    }
  }

  private isEnough(): boolean {
    const mayAsk = this.asked < this.asksMax
    let isWhole = true
    for (const { nearest } of this.paths) {
      const state = stateOf(nearest, this.count, mayAsk)
      if (state === "waiting") return false
      if (state === "settled") isWhole = false
    }
    return isWhole || !this.mayWaitForDoubtful()
  }

  /** Whether a doubtful peer may still answer in time. */
  private mayWaitForDoubtful(): boolean {
    let isAny = false
    for (const { isDoubtful } of this.underWay.keys()) isAny ||= isDoubtful
    return isAny && (this.answered === 0 || this.now() < this.doubtfulUntil())
  }

  private doubtfulUntil(): number {
    return this.heardAt + Math.max(doubtfulMillis, 2 * this.slowestMillis)
  }

  /** In monotonic milliseconds. */
  private now(): number {
    return Elapsed.millisUnsafe(this.clock)
  }

  readonly interrupt: Effect.Effect<void> = Effect.suspend(() => {
    this.isDone = true
    const fibers = [this.timer, this.turn, ...this.underWay.values()]
    return Fiber.interruptAll(fibers.filter((fiber) => fiber !== undefined))
  })

  /** Asks one peer for each path that may ask. False when none may. */
  private askNext(most: number): boolean {
    const { isAtHand, target } = this.options
    const activeMax = Math.max(1, Math.floor(this.parallel / this.paths.length))
    let isMore = false
    for (const path of this.paths) {
      if (this.asked >= Math.min(most, this.asksMax)) continue
      if (path.active >= activeMax || this.underWay.size - this.doubtedUnderWay() >= 3 * this.parallel) continue
      const next = nextOf(path.nearest, this.count, target, isAtHand)
      if (next !== undefined) this.start(path, next.candidate, next.rank)
      else if (!this.askDoubtful(path)) continue
      if (this.isDone) return false
      isMore = true
    }
    return isMore
  }

  /** Asks the nearest doubtful peer that is not asked yet: few of them, unless no other peer is there. */
  private askDoubtful(path: Path<P>): boolean {
    if (!this.knowsDoubtful || this.doubtedUnderWay() >= 3 * this.parallel) return false
    const isLast = this.answered === 0 && this.doubtedUnderWay() === this.underWay.size
    const mayAskSilent = isLast || this.silentAsked < this.count
    const mayAskMisled = isLast || this.misledAsked < this.count / misledPart
    const candidate = path.nearest.find(({ isDoubtful, isSilent, state }) =>
      isDoubtful && state === "told" && (isSilent ? mayAskSilent : mayAskMisled)
    )
    if (candidate === undefined) return false
    if (candidate.isSilent) this.silentAsked++
    else this.misledAsked++
    this.rewatch()
    this.start(path, candidate, rankOf(path.nearest, candidate))
    return true
  }

  private doubtedUnderWay(): number {
    if (!this.knowsDoubtful) return 0
    let count = 0
    for (const { isDoubtful } of this.underWay.keys()) if (isDoubtful) count++
    return count
  }

  private start(path: Path<P>, candidate: Candidate<P>, rank: number): void {
    this.asked++
    if (!candidate.isDoubtful) path.active++
    candidate.state = "asked"
    candidate.path = path
    candidate.since = this.now()
    const fiber = this.fork(this.options.ask(candidate.peer, rank))
    this.underWay.set(candidate, fiber)
    fiber.addObserver((exit) => this.ended(candidate, exit))
  }

  private ended(candidate: Candidate<P>, exit: Exit.Exit<LookupAnswer<P>, unknown>): void {
    this.underWay.delete(candidate)
    if (this.isDone) return
    const wasWaitedFor = candidate.state === "asked"
    if (wasWaitedFor && !candidate.isDoubtful) candidate.path.active--
    if (Exit.isSuccess(exit)) {
      if (!candidate.isDoubtful) this.slowestMillis = Math.max(this.slowestMillis, this.now() - candidate.since)
      if (!candidate.isDoubtful || this.answered === 0) this.heardAt = this.now()
      if (this.answered++ === 0 && this.knowsDoubtful) this.rewatch()
      candidate.state = "answered"
      this.judgeName(candidate, 1, wasWaitedFor ? 0 : -1)
      for (const peer of nearestOf(exit.value.closer, this.count, this.options.target)) {
        this.tell(candidate.path, peer, candidate.hop + 1, candidate.peer)
      }
      if (exit.value.enough === true) return this.finish(Exit.succeed(this.result()))
    } else {
      candidate.state = "failed"
      if (wasWaitedFor) this.judgeName(candidate, 0, 1)
      if (Cause.hasDies(exit.cause)) return this.finish(Exit.failCause(exit.cause as Cause.Cause<never>))
    }
    this.fill()
  }

  /** A path hears of a peer. */
  private tell(path: Path<P>, peer: P, hop: number, namedBy: P | undefined): void {
    if (peer.key === this.options.self) return
    const { doubts } = this.options
    const isMisled = namedBy !== undefined && doubts?.isMisleading(namedBy.key) === true
    let candidate = this.candidates.get(peer.key)
    if (candidate === undefined) {
      const isSilent = doubts?.isDoubtful(peer.key) === true
      const isDoubtful = isMisled || isSilent
      candidate = { peer, state: "told", hop, path, since: 0, namedBy, isDoubtful, isSilent }
      this.candidates.set(peer.key, candidate)
      this.knowsDoubtful ||= isDoubtful
    } else if (candidate.isDoubtful && candidate.state === "told" && !isMisled) {
      candidate.isDoubtful = candidate.isSilent
    }
    insert(path.nearest, candidate, this.options.target)
  }

  /** Goes on in the next turn of the event loop, when the answers that have arrived are read. */
  private rest(): void {
    if (this.turn !== undefined) return
    this.turn = this.fork(Effect.yieldNow)
    this.turn.addObserver(() => {
      this.turn = undefined
      if (!this.isDone) this.fill()
    })
  }

  /** One timer for all questions: for the first that becomes slow or late, or the end of waiting for doubtful peers. */
  private watch(): void {
    if (this.timer !== undefined) return
    const limit = this.slowLimit()
    let at = Infinity
    for (const { isDoubtful, since, state } of this.underWay.keys()) {
      if (isDoubtful) {
        if (this.answered > 0 && this.doubtfulUntil() > this.now()) at = Math.min(at, this.doubtfulUntil())
      } else if (state !== "late") {
        at = Math.min(at, since + (state === "slow" ? lateFactor * limit : limit))
      }
    }
    if (at === Infinity) return
    const timer = this.fork(Effect.sleep(Math.max(1, Math.ceil(at - this.now()))))
    this.timer = timer
    timer.addObserver(() => {
      if (this.timer !== timer) return
      this.timer = undefined
      if (this.isDone) return
      this.judge()
      this.fill()
    })
  }

  /** Sets the timer anew: there may be an earlier end than the one for which it is set. */
  private rewatch(): void {
    const { timer } = this
    this.timer = undefined
    timer?.interruptUnsafe()
  }

  /** Finds the questions that have become slow or late. */
  private judge(): void {
    const limit = this.slowLimit()
    const now = this.now()
    for (const candidate of this.underWay.keys()) {
      if (candidate.isDoubtful) continue
      const took = now - candidate.since
      if (candidate.state === "asked" && took >= limit) {
        candidate.state = "slow"
        candidate.path.active--
        this.judgeName(candidate, 0, 1)
      }
      if (candidate.state === "slow" && took >= lateFactor * limit) candidate.state = "late"
    }
  }

  private slowLimit(): number {
    return Math.max(this.slowMillis, 2 * this.slowestMillis)
  }

  /**
   * Tells what came of a peer that another one was the first to name. When that one turns out to mislead, the lookup
   * does not wait for the rest of what it has named.
   */
  private judgeName({ isSilent, namedBy }: Candidate<P>, answered: number, unanswered: number): void {
    const { doubts } = this.options
    // Honest peers have peers in their tables of which this node knows that they are silent.
    if (doubts === undefined || namedBy === undefined || isSilent) return
    doubts.named(namedBy.key, answered, unanswered)
    if (unanswered <= 0 || !doubts.isMisleading(namedBy.key)) return
    for (const candidate of this.candidates.values()) {
      if (candidate.namedBy !== namedBy || (candidate.state !== "told" && candidate.state !== "slow")) continue
      candidate.isDoubtful = true
      this.knowsDoubtful = true
    }
    this.rewatch()
  }

  private finish(exit: Exit.Exit<LookupResult<P>>): void {
    this.isDone = true
    this.timer?.interruptUnsafe()
    this.turn?.interruptUnsafe()
    for (const fiber of this.underWay.values()) fiber.interruptUnsafe()
    this.resume(exit)
  }

  private result(): LookupResult<P> {
    const closest = [...this.candidates.values()].filter(({ state }) => state === "answered")
      .sort((a, b) => compareDistance(a.peer.position, b.peer.position, this.options.target)).slice(0, this.count)
    const hops = closest.reduce((most, { hop }) => Math.max(most, hop), 0)
    return { closest: closest.map(({ peer }) => peer), asked: this.asked, answered: this.answered, hops }
  }
}

function insert<P extends LookupPeer>(
  nearest: Array<Candidate<P>>,
  candidate: Candidate<P>,
  target: Position
): void {
  let low = 0
  let high = nearest.length
  while (low < high) {
    const middle = (low + high) >> 1
    const other = nearest[middle]!
    if (other === candidate) return
    if (compareDistance(candidate.peer.position, other.peer.position, target) < 0) high = middle
    else low = middle + 1
  }
  nearest.splice(low, 0, candidate)
}

function nearestOf<P extends LookupPeer>(peers: ReadonlyArray<P>, count: number, target: Position): ReadonlyArray<P> {
  return peers.length <= count
    ? peers
    : peers.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, count)
}

/**
 * The nearest peer not asked yet, or a peer at hand that is about as near. None when `count` nearer peers have answered
 * or are being asked.
 */
function nextOf<P extends LookupPeer>(
  nearest: ReadonlyArray<Candidate<P>>,
  count: number,
  target: Position,
  isAtHand: ((peer: P) => boolean) | undefined
) {
  let first: { readonly candidate: Candidate<P>; readonly rank: number } | undefined
  let bits = 0
  let rank = 0
  for (const candidate of nearest) {
    const { isDoubtful, peer, state } = candidate
    if (isDoubtful && state !== "answered") continue
    if (state === "told") {
      if (isAtHand === undefined) return { candidate, rank }
      const shared = commonPrefixLength(peer.position, target)
      if (first === undefined) {
        first = { candidate, rank }
        bits = shared - equalBits
      } else if (shared < bits) {
        return first
      }
      if (isAtHand(peer)) return { candidate, rank }
    }
    if ((state === "told" || state === "asked" || state === "answered") && ++rank >= count) return first
  }
  return first
}

/** How many peers of those that are nearer have not failed. */
function rankOf<P>(nearest: ReadonlyArray<Candidate<P>>, candidate: Candidate<P>): number {
  let rank = 0
  for (const other of nearest) {
    if (other === candidate) break
    if (other.state === "answered" || (!other.isDoubtful && (other.state === "told" || other.state === "asked"))) rank++
  }
  return rank
}

/**
 * What a path waits for: `whole` when the `count` nearest have answered, doubtful peers aside; `settled` when fewer
 * have and none but doubtful peers are waited for.
 */
function stateOf<P>(
  nearest: ReadonlyArray<Candidate<P>>,
  count: number,
  mayAsk: boolean
): "whole" | "settled" | "waiting" {
  let answered = 0
  let isSlow = false
  let isLate = false
  for (const { isDoubtful, state } of nearest) {
    if (state === "answered" && ++answered >= count) return "whole"
    if (isDoubtful) continue
    if (state === "asked" || (state === "told" && mayAsk)) return "waiting"
    if (state === "slow") isSlow = true
    if (state === "late") isLate = true
  }
  return isSlow || (isLate && answered === 0) ? "waiting" : "settled"
}
