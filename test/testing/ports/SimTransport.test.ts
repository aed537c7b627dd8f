import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as SimTransport from "../../../src/testing/ports/SimTransport.ts"
import { transportContract } from "../../contract/TransportContract.ts"

const fixture = {
  makeTransport: SimTransport.make,
  nobody: "/memory/nobody" as Multiaddr,
  foreign: "/ip4/127.0.0.1/udp/4001/quic-v1" as Multiaddr,
  timeLimit: "1 minute"
} as const

transportContract("SimTransport without latency", { ...fixture, layer: SimNetwork.layer() })
transportContract("SimTransport with latency and jitter", {
  ...fixture,
  layer: SimNetwork.layer({ latency: "2 millis", jitter: "3 millis" })
})
