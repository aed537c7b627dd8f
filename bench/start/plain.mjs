/** Plain js-libp2p with the modules that a node of ours has; tells where it listens. */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { circuitRelayTransport } from "@libp2p/circuit-relay-v2"
import { dcutr } from "@libp2p/dcutr"
import { identify, identifyPush } from "@libp2p/identify"
import { kadDHT } from "@libp2p/kad-dht"
import { mdns } from "@libp2p/mdns"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { createLibp2p } from "libp2p"

const node = await createLibp2p({
  addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
  transports: [tcp(), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  peerDiscovery: [mdns()],
  services: {
    identify: identify(),
    identifyPush: identifyPush(),
    ping: ping(),
    dcutr: dcutr(),
    dht: kadDHT({ clientMode: false })
  }
})
console.log(node.getMultiaddrs().join("\n"))
