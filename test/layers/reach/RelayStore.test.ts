import { circuitRelayServer, circuitRelayTransport } from "@libp2p/circuit-relay-v2"
import { describe, it } from "@effect/vitest"
import type { CreateListenerOptions } from "@libp2p/interface"
import { assertMembers } from "../../../src/layers/libp2p/wire/LeanedOn.ts"
import * as RelayServer from "../../../src/layers/reach/RelayServer.ts"
import * as RelayStore from "../../../src/layers/reach/RelayStore.ts"
import { componentsOf, refuses, remove } from "../../support/leanedOn.ts"

const name = "@libp2p/circuit-relay-v2"

const made = async () => {
  const components = await componentsOf()
  return { components, transport: circuitRelayTransport()(components) as RelayStore.RelayTransport }
}

describe("relays are not used when a private member of libp2p's is missing", () => {
  it("and are when none is", async () => {
    const { components, transport } = await made()
    RelayStore.assertRelayTransport(transport, components)
    assertMembers(name, circuitRelayServer()(components), RelayServer.serverMembers)
  })

  for (const path of Object.keys(RelayStore.transportMembers)) {
    it(`of the transport: ${path}`, async () => {
      const { components, transport } = await made()
      await refuses(name, path, () => RelayStore.assertRelayTransport(remove(transport, path), components))
    })
  }

  for (const path of Object.keys(RelayStore.listenerMembers)) {
    it(`of its listeners: ${path}`, async () => {
      const { components, transport } = await made()
      const create = transport.createListener.bind(transport)
      transport.createListener = (options: CreateListenerOptions) => remove(create(options), path)
      await refuses(name, path, () => RelayStore.assertRelayTransport(transport, components))
    })
  }

  for (const path of Object.keys(RelayServer.serverMembers)) {
    it(`of the server: ${path}`, async () => {
      const { components } = await made()
      await refuses(
        name,
        path,
        () => assertMembers(name, remove(circuitRelayServer()(components), path), RelayServer.serverMembers)
      )
    })
  }
})
