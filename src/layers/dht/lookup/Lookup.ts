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
 * **Gotchas**: the lookup has no time limit of its own; give each question one. Questions still slow when the lookup
 * ends are interrupted, and not awaited.
 */
import { Cause, Clock, Context, Duration, Effect, Exit, Fiber } from "effect"
import { commonPrefixLength, compareDistance, type Position } from "../wire/Position.ts"
import * as Elapsed from "../../Elapsed.ts"

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

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// A dial and a question over the widest links take about six round trips of 80 ms.
const defaultSlowAfter = Duration.millis(500)

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
    this.slowMillis = Duration.toMillis(options.slowAfter ?? defaultSlowAfter)
    this.clock = Context.get(context, Clock.Clock)
    this.fork = Effect.runForkWith(context)
    this.resume = resume
    const seeds = options.seeds.toSorted((a, b) => compareDistance(a.position, b.position, options.target))
    const paths = Math.max(1, Math.min(options.paths ?? 1, seeds.length))
    this.paths = Array.from({ length: paths }, () => ({ nearest: [], active: 0 }))
    seeds.forEach((peer, index) => this.tell(this.paths[index % paths]!, peer, 1))
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
    const mayAsk = this.asked < this.asksMax
    if (
      (this.underWay.size === 0 && this.turn === undefined) ||
      this.paths.every(({ nearest }) => suffices(nearest, this.count, mayAsk))
    ) {
      this.finish(Exit.succeed(this.result()))
    } else {
      this.watch()
    }
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
      if (path.active >= activeMax || this.underWay.size >= 3 * this.parallel) continue
      const next = nextOf(path.nearest, this.count, target, isAtHand)
      if (next === undefined) continue
      this.start(path, next.candidate, next.rank)
      if (this.isDone) return false
      isMore = true
    }
    return isMore
  }

  private start(path: Path<P>, candidate: Candidate<P>, rank: number): void {
    this.asked++
    path.active++
    candidate.state = "asked"
    candidate.path = path
    candidate.since = Elapsed.millisUnsafe(this.clock)
    const fiber = this.fork(this.options.ask(candidate.peer, rank))
    this.underWay.set(candidate, fiber)
    fiber.addObserver((exit) => this.ended(candidate, exit))
  }

  private ended(candidate: Candidate<P>, exit: Exit.Exit<LookupAnswer<P>, unknown>): void {
    this.underWay.delete(candidate)
    if (this.isDone) return
    if (candidate.state === "asked") candidate.path.active--
    if (Exit.isSuccess(exit)) {
      this.answered++
      candidate.state = "answered"
      this.slowestMillis = Math.max(this.slowestMillis, Elapsed.millisUnsafe(this.clock) - candidate.since)
      for (const peer of nearestOf(exit.value.closer, this.count, this.options.target)) {
        this.tell(candidate.path, peer, candidate.hop + 1)
      }
      if (exit.value.enough === true) return this.finish(Exit.succeed(this.result()))
    } else {
      candidate.state = "failed"
      if (Cause.hasDies(exit.cause)) return this.finish(Exit.failCause(exit.cause as Cause.Cause<never>))
    }
    this.fill()
  }

  /** A path hears of a peer. */
  private tell(path: Path<P>, peer: P, hop: number): void {
    if (peer.key === this.options.self) return
    let candidate = this.candidates.get(peer.key)
    if (candidate === undefined) {
      candidate = { peer, state: "told", hop, path, since: 0 }
      this.candidates.set(peer.key, candidate)
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

  /** One timer for all questions: for the first that becomes slow or late. */
  private watch(): void {
    if (this.timer !== undefined || !Number.isFinite(this.slowMillis)) return
    const limit = this.slowLimit()
    let at = Infinity
    for (const { since, state } of this.underWay.keys()) {
      if (state !== "late") at = Math.min(at, since + (state === "slow" ? lateFactor * limit : limit))
    }
    if (at === Infinity) return
    this.timer = this.fork(Effect.sleep(Math.max(1, at - Elapsed.millisUnsafe(this.clock))))
    this.timer.addObserver(() => {
      this.timer = undefined
      if (this.isDone) return
      this.judge()
      this.fill()
    })
  }

  /** Finds the questions that have become slow or late. */
  private judge(): void {
    const limit = this.slowLimit()
    const now = Elapsed.millisUnsafe(this.clock)
    for (const candidate of this.underWay.keys()) {
      const took = now - candidate.since
      if (candidate.state === "asked" && took >= limit) {
        candidate.state = "slow"
        candidate.path.active--
      }
      if (candidate.state === "slow" && took >= lateFactor * limit) candidate.state = "late"
    }
  }

  private slowLimit(): number {
    return Math.max(this.slowMillis, 2 * this.slowestMillis)
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
    const { peer, state } = candidate
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

/** Whether the `count` nearest peers have answered, or all that are waited for. */
function suffices<P>(nearest: ReadonlyArray<Candidate<P>>, count: number, mayAsk: boolean): boolean {
  let answered = 0
  let isSlow = false
  let isLate = false
  for (const { state } of nearest) {
    if (state === "answered" && ++answered >= count) return true
    if (state === "asked" || (state === "told" && mayAsk)) return false
    if (state === "slow") isSlow = true
    if (state === "late") isLate = true
  }
  return !isSlow && !(isLate && answered === 0)
}
