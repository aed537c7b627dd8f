/**
 * Notes, counts and tells each connection of a known peer that this node refuses.
 */
import { Effect } from "effect"
import { PeerRefused, type RefusalReason } from "../../schema/NetworkEvent.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import type { Connection } from "../../services/Transport.ts"
import * as Elapsed from "../Elapsed.ts"
import type { InboundLimits } from "./InboundLimits.ts"
import { PeerBook } from "./PeerBook.ts"

/** Gives the reason back. */
export type Refuse = (
  connection: Pick<Connection, "peer" | "direction" | "remoteAddress">,
  reason: RefusalReason
) => Effect.Effect<RefusalReason>

/** For the gate, and for where the table does not admit what the gate had let in. */
export const make = Effect.fnUntraced(function*(limits: InboundLimits) {
  const events = yield* NetworkEvents
  const book = yield* PeerBook
  const refuse: Refuse = Effect.fnUntraced(function*({ direction, peer, remoteAddress: address }, reason) {
    book.noteRefusal(peer, { at: yield* Elapsed.millis, direction, reason })
    yield* limits.count(reason)
    yield* events.publish(new PeerRefused({ peer, address, direction, reason }, { disableChecks: true }))
    return reason
  })
  return refuse
})
