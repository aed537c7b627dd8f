import type { Mutant } from "./Mutant.ts"

export const discoveryMutants: ReadonlyArray<Mutant> = [
  {
    name: "the sender of an mDNS answer is forgotten",
    file: "src/layers/discovery/MdnsDiscovery.ts",
    text: "isOwn ? \"127.0.0.1\" : address",
    replacement: "isOwn ? \"0.0.0.0\" : \"0.0.0.0\"",
    specs: ["test/layers/discovery/MdnsDiscovery.live.test.ts"]
  },
  {
    name: "a remembered peer is no teller of its own address",
    file: "src/layers/discovery/RememberedPeers.ts",
    text: "tellers: [address]",
    replacement: "tellers: []",
    specs: ["test/layers/discovery/RememberedPeers.test.ts"]
  }
]
