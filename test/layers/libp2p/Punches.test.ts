import type { Connection } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { assert, describe, it } from "@effect/vitest"
import * as Punches from "../../../src/layers/libp2p/Punches.ts"
import { peerId } from "../../support/FakeConnection.ts"

const remote = peerIdFromString(peerId("remote"))
const make = (of: Partial<Connection>) => ({ remotePeer: remote, streams: [], ...of }) as unknown as Connection
const upgrading = make({
  direct: false,
  streams: [{ protocol: "/libp2p/dcutr", status: "open" }] as unknown as Connection["streams"]
})
const outbound = make({ direct: true, direction: "outbound" })
const inbound = make({ direct: true, direction: "inbound" })

describe("a punched hole", () => {
  it("is a direct connection beside a relayed one whose two ends agree over it", () => {
    const { isPunched } = Punches.make()
    assert.isTrue(isPunched(outbound, [upgrading, outbound]))
    assert.isTrue(isPunched(inbound, [upgrading, inbound]))
    assert.isFalse(isPunched(inbound, [make({ direct: false }), inbound]))
    assert.isFalse(isPunched(inbound, [inbound]))
  })

  it("is none for as long as this node dials the peer on its own account", async () => {
    const { during, isPunched } = Punches.make()
    const punched = () => [outbound, inbound].map((direct) => isPunched(direct, [upgrading, direct]))
    const other = make({ direct: true, direction: "outbound", remotePeer: peerIdFromString(peerId("other")) })
    await during(remote.toString(), async () => {
      assert.deepStrictEqual(punched(), [false, true])
      // Two dials of one peer at a time.
      await during(remote.toString(), () => Promise.reject(new Error("refused"))).catch(() => {})
      assert.deepStrictEqual(punched(), [false, true])
      assert.isTrue(isPunched(other, [upgrading, other]))
    })
    assert.deepStrictEqual(punched(), [true, true])
  })
})
