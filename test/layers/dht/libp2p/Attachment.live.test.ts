import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Table from "../../../../src/layers/dht/libp2p/Table.ts"
import { versions } from "../../../../src/layers/libp2p/wire/LeanedOn.ts"
import { kadProtocol, makeNode } from "../../../support/DhtNode.ts"

/** What is private of kad-dht, as far as it is spoiled here. */
interface Kad {
  setMode: () => Promise<void>
  readonly routingTable: { readonly kb: { localPeer: object; addSelfPeer: (...args: Array<unknown>) => Promise<void> } }
}

const version = versions["@libp2p/kad-dht"]

/** The error of a node whose kad-dht was spoiled. */
const failure = (spoil: (kad: Kad) => void) =>
  Effect.map(Effect.flip(makeNode({ spoil: (kad) => spoil(kad as Kad) })), (error) => {
    assert.strictEqual(error._tag, "HostError")
    return error.message
  })

describe("a node does not start with another kad-dht, which is named with its version", () => {
  it.live("one that does not register its handler where this library takes it over", () =>
    Effect.gen(function*() {
      const message = yield* failure((kad) => {
        kad.setMode = () => Promise.resolve()
      })
      assert.strictEqual(
        message,
        `@libp2p/kad-dht: this is not version ${version}: it has no handler of ${kadProtocol} in ` +
          `components.registrar; install exactly @libp2p/kad-dht@${version}`
      )
    }))

  for (const path of Object.keys(Table.startedMembers)) {
    it.live(`one whose entries lack a member: ${path}`, () =>
      Effect.gen(function*() {
        const message = yield* failure(({ routingTable: { kb } }) => {
          const add = kb.addSelfPeer.bind(kb)
          kb.addSelfPeer = async (...args) => {
            await add(...args)
            kb.localPeer = { ...kb.localPeer, [path.split(".").at(-1)!]: undefined }
          }
        })
        assert.include(message, `this is not version ${version}: its private member ${path} is undefined`)
      }))
  }
})
