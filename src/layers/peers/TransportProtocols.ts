/**
 * `Protocols` over the transport's streams and the table's holds.
 */
import { Cause, Duration, Effect, Exit, Fiber, Layer, Option, Result, Scope } from "effect"
import { PeerNotConnected, StreamError } from "../../schema/NetworkError.ts"
import type { StreamRefusal } from "../../schema/NodeStatus.ts"
import type { PeerId, ProtocolId } from "../../schema/Peer.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { type HandleOptions, Protocols } from "../../services/Protocols.ts"
import { Shutdown } from "../../services/Shutdown.ts"
import type { ByteStream } from "../../services/Transport.ts"
import { Transport } from "../../services/Transport.ts"

/** The `Protocols` over the transport and the table. */
export const make = Effect.gen(function*() {
  const transport = yield* Transport
  const table = yield* PeerTable
  const shutdown = yield* Shutdown
  let remaining = 0

  /**
   * Completes when nobody can use what the handler of the stream does any more.
   *
   * A remote that sends all it has, ends its half and leaves has done nothing wrong: its handler gets the time that a
   * stream lingers. It is a time that costs the remote nothing, so it is given to a few handlers only.
   */
  const pointless = (stream: ByteStream) =>
    Effect.flatMap(stream.lost, (loss) =>
      Effect.suspend(() => {
        if (loss === "cut" || remaining >= remainingMax) return Effect.void
        remaining++
        return Effect.ensuring(
          Effect.sleep(remainingTime),
          Effect.sync(() => {
            remaining--
          })
        )
      }))

  /**
   * Runs a handler until it ends, and interrupts it when its stream is lost. It can be left behind: if it ignores the
   * interruption of a stop, the stop waits for it as long as a part of the stop may take, then goes on without it.
   *
   * `ended` runs when the handler has ended, `lost` when its stream has, whichever is first.
   */
  const leavable = <E>(
    name: string,
    handler: Effect.Effect<void, E>,
    { ended, lost, stream }: {
      readonly stream: ByteStream
      readonly ended: () => void
      readonly lost: Effect.Effect<void>
    }
  ) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.forkDetach(handler, { startImmediately: true }), (fiber) => {
        fiber.addObserver(ended)
        // Many a handler ends in the turn in which it begins.
        if (fiber.pollUnsafe() !== undefined) return Fiber.join(fiber)
        const interrupting = Effect.flatMap(pointless(stream), () => {
          fiber.interruptUnsafe()
          return lost
        })
        return Effect.flatMap(Effect.forkDetach(interrupting, { startImmediately: true }), (watch) => {
          fiber.addObserver(() => watch.interruptUnsafe())
          return Effect.onInterrupt(
            restore(Fiber.join(fiber)),
            () =>
              fiber.pollUnsafe() !== undefined
                ? Effect.void
                : Effect.flatMap(shutdown.part(name, Fiber.interrupt(fiber), "most"), (ended) =>
                  ended
                    ? Effect.void
                    : Effect.logWarning(`${name} does not end when it is interrupted, and is left to itself`))
          )
        })
      })
    )

  // An interruption resets the stream.
  const refuse = (protocol: ProtocolId, peer: PeerId, reason: StreamRefusal) =>
    transport.streams.refuse(reason).pipe(
      Effect.andThen(Effect.logDebug(`a stream of ${protocol} is refused to ${peer}: ${reason}`)),
      Effect.andThen(Effect.interrupt)
    )

  const handle = Effect.fnUntraced(function*<E, R, E2, R2>(
    protocol: ProtocolId,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>,
    options: HandleOptions<E2, R2> = {}
  ) {
    const { authorize, maxStreamsPerPeer = streamsPerPeerMax } = options
    const context = yield* Effect.context<R | R2>()
    const running = new Map<PeerId, number>()

    const serve = Effect.fnUntraced(function*(stream: ByteStream) {
      const { connection } = stream
      const { peer } = connection
      // The stream may come before the event pump has admitted its connection, and a peer without a slot is not
      // served. What else follows admission is left to the pump: no caller waits for it here.
      if (Result.isFailure(yield* Effect.result(table.admit(connection)))) return yield* connection.close
      const before = running.get(peer) ?? 0
      if (before >= maxStreamsPerPeer) return yield* refuse(protocol, peer, "streams")
      running.set(peer, before + 1)
      const allowed = authorize === undefined ? Effect.void : Effect.flatMap(
        // Both functions of the program are called within the effect: what they throw counts as a handler that ended.
        Effect.onError(Effect.suspend(() => authorize(peer)), () => transport.streams.refuse("unauthorized")),
        (isAllowed) => isAllowed ? Effect.void : refuse(protocol, peer, "unauthorized")
      )
      // A refused stream does not make the peer busy, and a lost one no longer, whatever its handler does.
      const busy = Scope.makeUnsafe()
      const end = Scope.close(busy, Exit.void)
      const work = allowed.pipe(
        Effect.andThen(Scope.provide(table.attend(connection), busy)),
        // Not before the peer is allowed.
        Effect.andThen(Effect.suspend(() => handler(stream))),
        Effect.scoped,
        Effect.provide(context)
      )
      yield* leavable(`the handler of ${protocol}`, work as Effect.Effect<void, E | E2 | PeerNotConnected>, {
        stream,
        lost: end,
        ended: () => {
          const left = (running.get(peer) ?? 1) - 1
          if (left > 0) running.set(peer, left)
          else running.delete(peer)
        }
      }).pipe(Effect.ensuring(end))
    })

    yield* transport.handle(
      protocol,
      (stream) =>
        serve(stream).pipe(
          // Its interruption resets the stream.
          Effect.catchCause((cause) => {
            const { peer } = stream.connection
            const error = Option.getOrUndefined(Cause.findErrorOption(cause))
            // A remote that resets its stream or leaves is no fault of the handler.
            const told = isDeparture(error)
              ? Effect.logDebug(`${protocol} with ${peer} ended early: ${error.message}`)
              : Cause.hasInterruptsOnly(cause)
              ? Effect.void
              : Effect.logError(`the handler of ${protocol} failed, and its stream with ${peer} is reset`, cause)
            return Effect.andThen(told, Effect.interrupt)
          }),
          Effect.annotateLogs({ component: "protocols" })
        ),
      options
    )
  })

  // A scope of its own, so that a stream that fails to open leaves no hold in the caller's scope.
  const open = Effect.fn("Protocols.open")(function*(peer: PeerId, protocol: ProtocolId) {
    const scope = yield* Scope.fork(yield* Effect.scope)
    return yield* Effect.flatMap(table.hold(peer), (connection) => connection.open(protocol)).pipe(
      Scope.provide(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
  })

  return Protocols.of({ handle: handle as Protocols["Service"]["handle"], open })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<Protocols, never, Transport | PeerTable> = Layer.effect(Protocols, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const streamsPerPeerMax = 1024

// Handlers that go on for a while after their connection, of all protocols.
const remainingMax = 256
const remainingTime = Duration.seconds(10)

const isDeparture = (error: unknown): error is StreamError | PeerNotConnected =>
  error instanceof StreamError || error instanceof PeerNotConnected
