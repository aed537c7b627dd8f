import type { Mutant } from "./Mutant.ts"

const valueRecords = "src/layers/dht/serve/ValueRecords.ts"
const valueRecordsSpecs = ["test/layers/dht/serve/ValueRecords.test.ts"] as const

export const dhtMutants: ReadonlyArray<Mutant> = [
  {
    name: "a sender of values has no share",
    file: valueRecords,
    text: "if (sender !== own && sender.weight + grows > perSenderMax)",
    replacement: "if (sender !== own && sender.weight + grows > Infinity)",
    specs: valueRecordsSpecs
  },
  {
    name: "a subnet has no share of the values",
    file: valueRecords,
    text: "sender.subnet.weight + grows > perSubnetMax",
    replacement: "sender.subnet.weight + grows > Infinity",
    specs: valueRecordsSpecs
  },
  {
    name: "a long value counts as a short one",
    file: valueRecords,
    text: "Math.max(1, Math.ceil(record.length * recordsMax / bytesMax))",
    replacement: "1",
    specs: valueRecordsSpecs
  },
  {
    name: "a value belongs to who has put it last",
    file: valueRecords,
    text: "return other === own || weightOf(other) <= weightOf(one) ? other : one",
    replacement: "return other === own ? other : one",
    specs: valueRecordsSpecs
  },
  {
    name: "a value of this node belongs to a stranger who puts the same",
    file: valueRecords,
    text: "return other === own || weightOf(other) <= weightOf(one) ? other : one",
    replacement: "return weightOf(other) <= weightOf(one) ? other : one",
    specs: valueRecordsSpecs
  },
  {
    name: "values of a sender stay in the subnet that it had first",
    file: valueRecords,
    text: "if (sender.subnetName === subnet) return sender",
    replacement: "return sender",
    specs: valueRecordsSpecs
  },
  {
    name: "a full store of values lets the oldest of all go",
    file: valueRecords,
    text: "const [oldest] = other?.names ?? []",
    replacement: "const [oldest] = stored.keys()",
    specs: valueRecordsSpecs
  },
  {
    name: "a server tells no store who puts a value",
    file: "src/layers/dht/serve/Server.ts",
    text: "Elapsed.millisUnsafe(clock), from)).pipe(",
    replacement: "Elapsed.millisUnsafe(clock))).pipe(",
    specs: ["test/layers/dht/serve/Server.test.ts"]
  },
  {
    name: "the sender of many provider records does not give way",
    file: "src/layers/dht/serve/Shares.ts",
    text: "weightOf(sender) > weightOf(heaviest)",
    replacement: "weightOf(sender) < weightOf(heaviest)",
    specs: ["test/layers/dht/serve/ProviderRecords.test.ts"]
  },
  {
    name: "provided keys that the disk did not give are written over",
    file: "src/layers/dht/provide/Store.ts",
    text: "return error === undefined ? store.set(name, text) : Effect.fail(error)",
    replacement: "return error === undefined ? store.set(name, text) : store.set(name, text)",
    specs: ["test/layers/dht/provide/Store.test.ts"]
  },
  {
    name: "entries of provided keys that were removed stay away",
    file: "src/layers/dht/provide/Store.ts",
    text: "if (!isThere) dirty.add(part)",
    replacement: "if (isThere) dirty.add(part)",
    specs: ["test/layers/dht/provide/Store.test.ts"]
  }
]
