/**
 * The rule by which connections are let in and out, installed at the transport's gate. It never suspends.
 */
import { Effect } from "effect"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import { AddressGuard, isDialable } from "../../services/AddressGuard.ts"
import { NetworkMonitor } from "../../services/NetworkMonitor.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { GateRequest } from "../../services/Transport.ts"
import { Transport } from "../../services/Transport.ts"
import * as Supervised from "../Supervised.ts"
import { Dialer } from "./Dialer.ts"
import type * as InboundLimits from "./InboundLimits.ts"
import { PeerBook } from "./PeerBook.ts"
import * as PeerRecord from "./PeerRecord.ts"
import type * as Refusals from "./Refusals.ts"

/** What the gate is asked before a dial. */
type DialRequest = GateRequest & { readonly stage: "dial" }

/** What the gate is asked in its last stage, when the handshake has told who the remote is. */
type PeerRequest = GateRequest & { readonly stage: "peer" }

/**
 * Installs the rule while the scope lives.
 */
export const install = Effect.fnUntraced(function*(options: {
  readonly limits: InboundLimits.InboundLimits
  readonly refuse: Refusals.Refuse
}) {
  const { limits, refuse } = options
  const transport = yield* Transport
  const table = yield* PeerTable
  const monitor = yield* NetworkMonitor
  const guard = yield* AddressGuard
  const book = yield* PeerBook
  const dialer = yield* Dialer

  /**
   * A dial of an address that another node told, or of one that the transport dials on its own: refused now, before the
   * remote would take this node for a peer. The book may know more of the address than the transport does.
   */
  const allowsDial = Effect.fnUntraced(function*(request: DialRequest) {
    const { peer, remoteAddress, resolved = remoteAddress, tellers } = request
    if (peer !== undefined) {
      if ((yield* table.refuses(peer)) !== undefined) return false
      // Disconnected by the program, until it asks for the peer again.
      if (book.get(peer)?.suspended === true) return false
    }
    const known = peer === undefined ? undefined : book.get(peer)?.addresses.get(remoteAddress)
    if (known?.isOwn === true) return true
    return isDialable(guard, resolved, yield* monitor.interfaces, [...tellers, ...known?.tellers ?? []])
  })

  /**
   * Closes the loop from the dialer through the transport and this gate back to the dialer.
   *
   * The dialer may dial an address without knowing whose it is. The transport learns the peer id in the handshake and
   * asks the gate. The gate tells the dialer who answers, and the dialer makes that peer wanted until the dial ends: so
   * the reservation that follows may count on an eviction, as for a dial by id. When the gate refuses all the same, the
   * dialer finds the reason in the book, under the ids it was told.
   */
  const tellDialerWhoAnswers = ({ direction, peer, remoteAddress }: PeerRequest): Effect.Effect<void> =>
    Effect.sync(() => {
      if (direction === "outbound") dialer.answered(remoteAddress, peer)
    })

  const admits = Effect.fnUntraced(function*(request: PeerRequest) {
    // Before the dialer is told, which makes the peer wanted: a blocked peer never is. The table asks again for itself.
    if (PeerRecord.isBlocked(book.get(request.peer))) return yield* refuse(request, "blocked")
    yield* tellDialerWhoAnswers(request)
    const refusal = yield* table.reserve(request)
    return refusal === undefined || (yield* refuse(request, refusal))
  })

  const answer = (request: GateRequest): Effect.Effect<boolean | RefusalReason> => {
    switch (request.stage) {
      case "address":
        return limits.arrive(request)
      case "dial":
        return allowsDial(request)
      case "peer":
        return admits(request)
    }
  }
  const told = yield* Supervised.told
  // A rule that dies refuses: nobody is let in unseen.
  yield* transport.gate((request) =>
    told(Effect.catchCause(
      Effect.suspend(() => answer(request)),
      (cause) => Effect.as(Supervised.report("the gate", cause), false)
    ))
  )
})
