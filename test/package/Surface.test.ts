/**
 * The entry points name every file that a program may use, so that a new one is not forgotten.
 */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** Parts of other layers: workarounds of one libp2p version, what only a connection can make, encryption, one layer's own records. */
const partsOfLayers = new Set([
  "IsolationSupervisor.ts",
  "KadDial.ts",
  "KadAttachment.ts",
  "KadBeyond.ts",
  "KadEngine.ts",
  "KadHandler.ts",
  "KadCrowding.ts",
  "KadKeys.ts",
  "KadLookup.ts",
  "KadMessage.ts",
  "KadRetry.ts",
  "KadStream.ts",
  "KadStreams.ts",
  "KadNode.ts",
  "KadPeers.ts",
  "KadPosition.ts",
  "KadProvide.ts",
  "KadRegions.ts",
  "KadServer.ts",
  "KadQueries.ts",
  "KadTable.ts",
  "KadValues.ts",
  "KnownPeers.ts",
  "Libp2pByteStream.ts",
  "Libp2pConnection.ts",
  "Libp2pDialing.ts",
  "Libp2pEagerStream.ts",
  "Libp2pFaults.ts",
  "Libp2pGoAway.ts",
  "Libp2pModules.ts",
  "Libp2pMuxer.ts",
  "Libp2pNoise.ts",
  "Libp2pProgress.ts",
  "Libp2pTcp.ts",
  "LookupBudget.ts",
  "PeerDialer.ts",
  "PeerExplanations.ts",
  "PeerSupervisor.ts",
  "ProvideProgress.ts",
  "ProvideTakers.ts",
  "ProvideTimes.ts",
  "ProvidedKeys.ts",
  "ProvidedKeysStore.ts",
  "ProviderRanking.ts",
  "ProviderRecords.ts",
  "ProviderRows.ts",
  "Pulse.ts",
  "SharedLookups.ts",
  "StaggeredDial.ts",
  "ValueRecords.ts",
  "ValueRepair.ts",
  "Values.ts"
])

describe("the entry points", () => {
  it("of the package exports every schema and service", () => {
    const expected = [...filesOf("schema"), ...filesOf("services")]
    assert.deepStrictEqual(expected.filter((file) => !exportsOf("index.ts").has(`./${file}`)), [])
  })

  it("of the layers exports every layer", () => {
    const expected = filesOf("layers").map((path) => path.slice("layers/".length)).filter((file) =>
      file !== "index.ts" && !partsOfLayers.has(file)
    )
    assert.deepStrictEqual(expected.filter((file) => !exportsOf("layers/index.ts").has(`./${file}`)), [])
  })

  it("of the simulator exports every port", () => {
    for (const port of ["SimNetwork", "SimTransport", "SimDiscovery", "SimDht", "SimKad", "TestNetwork"]) {
      assert.isTrue(exportsOf("testing/index.ts").has(`./${port}.ts`), port)
    }
  })
})

// internal -------------------------------------------------------------------------------------------------------------------------------

const source = join(import.meta.dirname, "../../src")

function filesOf(floor: string): ReadonlyArray<string> {
  return readdirSync(join(source, floor)).filter((file) => file.endsWith(".ts")).map((file) => `${floor}/${file}`)
}

function exportsOf(file: string): ReadonlySet<string> {
  const text = readFileSync(join(source, file), "utf8")
  return new Set([...text.matchAll(/\sfrom "([^"]+)"/g)].flatMap((match) => match[1] ?? []))
}
