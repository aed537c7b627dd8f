import type { Mutant } from "./Mutant.ts"

export const servicesMutants: ReadonlyArray<Mutant> = [
  {
    name: "a sighting that is no object kills its source",
    file: "src/services/Discovery.ts",
    text: "Predicate.isReadonlyObject(found) ? found.id : found",
    replacement: "found.id",
    specs: ["test/services/Discovery.test.ts"]
  },
  {
    name: "a sighting without a list of addresses kills its source",
    file: "src/services/Discovery.ts",
    text: "Array.isArray(found.addresses) ? found.addresses : []",
    replacement: "found.addresses",
    specs: ["test/services/Discovery.test.ts"]
  },
  {
    name: "guests make room however few they are",
    file: "src/services/EvictionPolicy.ts",
    text: "isFullOfGuests && hasStayed",
    replacement: "hasStayed",
    specs: ["test/services/EvictionPolicy.test.ts"]
  },
  {
    name: "guests make room before their stay is over",
    file: "src/services/EvictionPolicy.ts",
    text: "isFullOfGuests && hasStayed(candidate)",
    replacement: "isFullOfGuests",
    specs: ["test/services/EvictionPolicy.test.ts"]
  },
  {
    name: "a source's address that cannot be read is sighted",
    file: "src/services/Discovery.ts",
    text: "known.has(source) ?",
    replacement: "known.has(source) || source !== \"\" ?",
    specs: ["test/services/Discovery.test.ts"]
  },
  {
    name: "a promised slot takes a step of the backoff",
    file: "src/services/ReconnectPolicy.ts",
    text: "promises = isPromised(error) ? promises + 1 : 0",
    replacement: "promises = 0",
    specs: ["test/services/ReconnectPolicy.test.ts", "test/sim/limit.test.ts"]
  },
  {
    name: "a remote that always promises is dialled every three seconds for ever",
    file: "src/services/ReconnectPolicy.ts",
    text: "const promisesMax = 8",
    replacement: "const promisesMax = Infinity",
    specs: ["test/services/ReconnectPolicy.test.ts"]
  },
  {
    name: "a promised slot is told as a full table",
    file: "src/services/Transport.ts",
    text: "reason === \"shutdown\" || reason === \"promised\" ? reason",
    replacement: "reason === \"shutdown\" ? reason",
    specs: ["test/services/Transport.test.ts", "test/testing/ports/SimTransport.test.ts"]
  },
  {
    name: "another prefix reads CODIO variables",
    file: "src/services/NetworkConfig.ts",
    text: "process.env, prefix?.replace(/_$/, \"\")",
    replacement: "process.env, prefix?.replace(/.*/, \"CODIO\")",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "loopback is dialled for a stranger",
    file: "src/services/AddressGuard.ts",
    text: "if (reach === \"loopback\") return isToldByLoopback",
    replacement: "if (reach === \"loopback\") return true",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "this machine's own addresses are dialled for a stranger",
    file: "src/services/AddressGuard.ts",
    text: "if (isOwn(own, ip)) return isToldHere",
    replacement: "",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "a private address is dialled wherever its teller lies",
    file: "src/services/AddressGuard.ts",
    text: "(isToldHere || tellerIp !== undefined && IpNetwork.contains(subnet, tellerIp))",
    replacement: "true",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "a relayed teller lies where its relay does",
    file: "src/services/AddressGuard.ts",
    text: "directIpOf(teller)",
    replacement: "directIpOf(teller.replace(\"/p2p-circuit\", \"\") as typeof teller)",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "one form of several is enough",
    file: "src/services/AddressGuard.ts",
    text: "reached(host).every(",
    replacement: "reached(host).some(",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "only the first teller counts",
    file: "src/services/AddressGuard.ts",
    text: "tellers.some((teller)",
    replacement: "tellers.slice(0, 1).some((teller)",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "mDNS is trusted",
    file: "src/services/Discovery.ts",
    text: "mdns: { isOwn: false,",
    replacement: "mdns: { isOwn: true,",
    specs: ["test/services/Discovery.test.ts"]
  },
  {
    name: "the tellers of a sighting are lost",
    file: "src/services/Discovery.ts",
    text: "? { address, tellers: [] } : address",
    replacement: "? { address, tellers: [] } : { ...address, tellers: [] }",
    specs: ["test/services/Discovery.test.ts"]
  },
  {
    name: "a Config that is none is taken apart without an end",
    file: "src/services/NetworkConfig.ts",
    text: "const problems = configProblems(options)",
    replacement: "const problems = configProblems({})",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "any prefix of variables is taken",
    file: "src/services/NetworkConfig.ts",
    text: "const problem = prefixProblem(prefix)",
    replacement: "const problem = prefixProblem(undefined)",
    specs: ["test/sim/arguments.test.ts"]
  }
]
