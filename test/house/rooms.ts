/**
 * The law of the house, one row a folder of `src`: what its files may import from other folders, and which packages.
 * docs/ARCHITECTURE.md shows the rooms. A new folder needs a row; an exception needs its reason.
 *
 * Rooms of `layers` meet in services: a file of one room imports no other room. The exceptions are the files that carry
 * libp2p, which import `layers/libp2p`, and three files of `layers/peers`, which import the requests of `layers/codio`.
 */

export interface Room {
  /** Path below src; `.` stands for the files that lie in src itself. */
  readonly folder: string
  /** Folders from which it may import, besides its own. */
  readonly rooms: ReadonlyArray<string>
  /**
   * Packages of libp2p that it may import. A file that imports one may also use real time, which libp2p runs on, and so
   * may the files of `cli`, since a process ends in real time.
   */
  readonly libp2p: ReadonlyArray<string>
  /** Other packages that it may import; every folder may import effect. */
  readonly packages: ReadonlyArray<string>
  /** Single files that may import more, each with the reason. */
  readonly exceptions?: ReadonlyArray<Exception>
}

export interface Exception {
  readonly file: string
  readonly imports: string
  readonly because: string
}

/** What every room of `layers` stands on. `layers` itself holds the tools that all rooms share. */
const ground = ["schema", "services", "layers"]

const room = (
  name: string,
  rooms: ReadonlyArray<string>,
  libp2p: ReadonlyArray<string>,
  packages: ReadonlyArray<string>,
  exceptions: ReadonlyArray<Exception> = []
): Room => ({
  folder: `layers/${name}`,
  rooms: [...ground, ...rooms.map((other) => `layers/${other}`)],
  libp2p,
  packages,
  exceptions
})

export const rooms: ReadonlyArray<Room> = [
  {
    folder: "schema",
    rooms: [],
    libp2p: [],
    packages: ["multiformats", "@multiformats/multiaddr", "cborg", "node:os"]
  },
  { folder: "services", rooms: ["schema"], libp2p: [], packages: [] },
  { folder: "layers", rooms: ["schema", "services"], libp2p: [], packages: [] },

  room("machine", [], [], [
    "multiformats",
    "node:crypto",
    "node:os",
    "node:sqlite"
  ]),
  room("libp2p", ["libp2p/wire"], [
    "libp2p",
    "@libp2p/crypto",
    "@libp2p/identify",
    "@libp2p/interface",
    "@libp2p/peer-id",
    "@libp2p/ping"
  ], ["@multiformats/multiaddr", "multiformats", "node:util"]),
  room("libp2p/wire", [], [
    "libp2p",
    "@chainsafe/libp2p-noise",
    "@chainsafe/libp2p-yamux",
    "@libp2p/crypto",
    "@libp2p/interface",
    "@libp2p/tcp"
  ], [
    "@multiformats/multiaddr",
    "node:crypto",
    "node:dns",
    "node:dns/promises",
    "node:net"
  ]),
  room("codio", [], [], []),
  room("peers", [], [], [], [
    {
      file: "Connections.ts",
      imports: "layers/codio",
      because: "the two sides agree to retire a connection by a request"
    },
    { file: "Departure.ts", imports: "layers/codio", because: "a peer that is let go is told why by a request" },
    {
      file: "Supervisor.ts",
      imports: "layers/codio",
      because: "a kept peer is asked not to close for idleness by a request"
    }
  ]),

  room(
    "dht",
    ["dht/libp2p", "dht/lookup", "dht/provide", "dht/serve", "dht/values", "dht/wire"],
    [],
    ["multiformats"]
  ),
  room("dht/wire", [], [], ["multiformats", "node:crypto"]),
  room("dht/lookup", ["dht/wire"], [], []),
  room("dht/provide", ["dht/lookup", "dht/wire"], [], ["node:crypto"]),
  room("dht/values", ["dht/wire"], [], []),
  room("dht/serve", ["dht/values", "dht/wire"], [], ["@multiformats/multiaddr", "node:crypto"]),
  room("dht/libp2p", ["dht", "dht/serve", "dht/wire", "libp2p", "libp2p/wire"], [
    "@libp2p/crypto",
    "@libp2p/interface",
    "@libp2p/kad-dht",
    "@libp2p/peer-id",
    "@libp2p/peer-record"
  ], [
    "@multiformats/multiaddr",
    "multiformats"
  ]),

  room("discovery", [], ["@libp2p/interface", "@libp2p/mdns"], ["@multiformats/multiaddr", "node:dgram", "node:os"], [
    { file: "MdnsDiscovery.ts", imports: "layers/libp2p", because: "it is a module of the host" }
  ]),
  room("reach", ["libp2p", "libp2p/wire"], [
    "@libp2p/circuit-relay-v2",
    "@libp2p/dcutr",
    "@libp2p/interface",
    "@libp2p/peer-id",
    "@libp2p/utils"
  ], ["@multiformats/multiaddr"]),

  {
    folder: ".",
    rooms: [
      ...ground,
      ...["codio", "dht", "dht/libp2p", "dht/lookup", "discovery", "libp2p", "machine", "peers", "reach"].map((name) =>
        `layers/${name}`
      )
    ],
    libp2p: [],
    packages: ["@effect/platform-node"]
  },
  {
    folder: "testing",
    rooms: [
      ".",
      ...ground,
      "layers/discovery",
      "layers/machine",
      "testing/network",
      "testing/ports",
      "testing/scenario"
    ],
    libp2p: [],
    packages: []
  },
  { folder: "testing/network", rooms: [...ground, "layers/machine"], libp2p: [], packages: ["multiformats"] },
  {
    folder: "testing/ports",
    rooms: [
      ...ground,
      "layers/dht",
      "layers/dht/lookup",
      "layers/dht/provide",
      "layers/dht/serve",
      "layers/dht/values",
      "layers/dht/wire",
      "layers/machine",
      "testing/network"
    ],
    libp2p: [],
    packages: ["multiformats", "@multiformats/multiaddr"],
    exceptions: [
      {
        file: "SimDht.ts",
        imports: "layers/dht/libp2p",
        because: "simulated nodes publish values that a real node can read"
      },
      {
        file: "SimKad.ts",
        imports: "layers/dht/libp2p",
        because: "the simulated DHT remembers peers as the real one does"
      },
      {
        file: "SimKadTable.ts",
        imports: "layers/dht/libp2p",
        because: "the simulated routing table has the size of the real one's buckets"
      }
    ]
  },
  {
    folder: "testing/scenario",
    rooms: [...ground, "testing/network"],
    libp2p: [],
    packages: [],
    exceptions: [
      { file: "Hosts.ts", imports: "testing", because: "it starts whole nodes, which TestNetwork puts together" },
      { file: "Hosts.ts", imports: "testing/ports", because: "a scenario chooses the DHT of its nodes" },
      { file: "Content.ts", imports: "testing", because: "it uses the node that TestNetwork started" },
      { file: "Content.ts", imports: "layers/dht/libp2p", because: "its values are signed as those of programs are" },
      {
        file: "Simulation.ts",
        imports: "testing",
        because: "an application is given the node that TestNetwork started"
      }
    ]
  },
  {
    folder: "cli",
    rooms: [".", ...ground, "layers/libp2p", "layers/reach"],
    libp2p: [],
    packages: ["@effect/platform-node", "node:*"]
  }
]

/** Files that may use words which the law forbids elsewhere: real time, or loading a module without an import. */
export const allowances: ReadonlyArray<{
  readonly file: string
  readonly words: ReadonlyArray<string>
  readonly because: string
}> = [
  {
    file: "testing/network/SimClock.ts",
    words: ["setImmediate"],
    because: "between slices of virtual time it lets the process do its real input and output"
  },
  {
    file: "layers/machine/DataDirectory.ts",
    words: ["getBuiltinModule"],
    because: "Node warns when it loads node:sqlite, and only a load at run time can be muted"
  }
]

/**
 * Files with a layer that is a part of another layer, and so not in the `index.ts` of their room.
 */
export const parts: ReadonlyArray<{ readonly file: string; readonly because: string }> = [
  { file: "layers/peers/Dialer.ts", because: "the connection manager's dials" }
]
