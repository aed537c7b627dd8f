import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import type {
  CreateListenerOptions,
  DialTransportOptions,
  MultiaddrConnection,
  StreamMuxerFactory
} from "@libp2p/interface"
import { tcp } from "@libp2p/tcp"
import { multiaddrConnectionPair } from "@libp2p/utils"
import type { Multiaddr } from "@multiformats/multiaddr"
import { Effect, Layer } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Faults from "../../../../src/layers/libp2p/Faults.ts"
import * as Host from "../../../../src/layers/libp2p/Host.ts"
import * as LeanedOn from "../../../../src/layers/libp2p/wire/LeanedOn.ts"
import * as Noise from "../../../../src/layers/libp2p/wire/Noise.ts"
import * as Tcp from "../../../../src/layers/libp2p/wire/Tcp.ts"
import * as Yamux from "../../../../src/layers/libp2p/wire/Yamux.ts"
import * as FileIdentity from "../../../../src/layers/machine/FileIdentity.ts"
import { HostError } from "../../../../src/schema/NetworkError.ts"
import { NetworkConfig } from "../../../../src/services/NetworkConfig.ts"
import { componentsOf, refuses, remove } from "../../../support/leanedOn.ts"

const read = (name: string) => JSON.parse(readFileSync(join(import.meta.dirname, "../../../..", name), "utf8"))

/** What is thrown. */
const failure = (body: () => void): unknown => {
  try {
    body()
    return undefined
  } catch (cause) {
    return cause
  }
}

describe("the packages of which private members are used", () => {
  it("are those, and only those, that package.json pins exactly", () => {
    const declared = Object.entries<string>(read("package.json").dependencies)
    assert.deepStrictEqual(
      Object.fromEntries(declared.filter(([, range]) => /^\d/.test(range))),
      LeanedOn.versions
    )
  })

  it("are installed in that version", () => {
    const { packages } = read("package-lock.json")
    const names = Object.keys(LeanedOn.versions)
    assert.deepStrictEqual(
      Object.fromEntries(names.map((name) => [name, packages[`node_modules/${name}`].version])),
      LeanedOn.versions
    )
  })
})

describe("a member", () => {
  const object = { table: { size: 20, kb: null, find: () => 1 } }

  it("of the expected kind is let pass, at any depth", () => {
    LeanedOn.assertMembers("@libp2p/kad-dht", object, {
      table: "object",
      "table.size": "number",
      "table.find": "function"
    })
  })

  for (
    const [path, found] of [
      ["table.kb", "null"],
      ["table.gone", "undefined"],
      ["table.kb.size", "undefined"],
      ["gone.size", "undefined"],
      ["table.size", "number"]
    ] as const
  ) {
    it(`that is ${found} at ${path} is named, with its package and version`, () => {
      const thrown = failure(() => LeanedOn.assertMember("@libp2p/kad-dht", object, path, "function"))
      assert.instanceOf(thrown, HostError)
      assert.strictEqual(
        (thrown as HostError).message,
        `@libp2p/kad-dht: this is not version ${
          LeanedOn.versions["@libp2p/kad-dht"]
        }: its private member ${path} is ${found} ` +
          `where function is expected; install exactly @libp2p/kad-dht@${LeanedOn.versions["@libp2p/kad-dht"]}`
      )
    })
  }
})

describe("an assertion of a process", () => {
  it("that has passed is not made again, and one that has failed is", async () => {
    let made = 0
    let isMissing = true
    const assertOnce = LeanedOn.once((name: LeanedOn.Pinned) => {
      made++
      if (isMissing) throw LeanedOn.mismatch(name, "it is gone")
    })
    const failed = await assertOnce("libp2p").catch((cause: unknown) => cause)
    assert.instanceOf(failed, HostError)
    isMissing = false
    await assertOnce("libp2p")
    await assertOnce("libp2p")
    assert.strictEqual(made, 2)
  })
})

describe("a node does not start when a member is missing, which is named with its package and version", () => {
  for (const path of Object.keys(Yamux.muxerMembers)) {
    it(`of Yamux's muxer: ${path}`, () =>
      refuses("@chainsafe/libp2p-yamux", path, () => Yamux.assertYamux(muxersWith((muxer) => remove(muxer, path)))))
  }

  for (const path of Object.keys(Yamux.streamMembers)) {
    it(`of Yamux's streams: ${path}`, () =>
      refuses("@chainsafe/libp2p-yamux", path, () =>
        Yamux.assertYamux(muxersWith((muxer) => {
          const make = muxer._newStream.bind(muxer)
          muxer._newStream = (...options) => remove(make(...options), path)
        }))))
  }

  it("of a muxer that the remote has ended: remoteGoAway", () =>
    refuses("@chainsafe/libp2p-yamux", "remoteGoAway", () =>
      Yamux.assertYamux(muxersWith((muxer) => {
        muxer.handleGoAway = () => {}
      }))))

  for (const path of Object.keys(Noise.encrypterMembers)) {
    it(`of noise: ${path}`, async () => {
      const components = await componentsOf()
      await refuses(
        "@chainsafe/libp2p-noise",
        path,
        () => Noise.fastNoise(components, (given) => remove(noise()(given), path))
      )
    })
  }

  for (const path of Object.keys(Noise.securedMembers)) {
    it(`of a secured connection: ${path}`, async () => {
      const components = await componentsOf()
      await refuses("@chainsafe/libp2p-noise", path, () =>
        Noise.assertSecured(components, (given) => {
          const encrypter = noise()(given)
          const { secureOutbound } = encrypter
          return Object.assign(encrypter, {
            secureOutbound: async function(this: typeof encrypter, ...options: Parameters<typeof secureOutbound>) {
              const secured = await secureOutbound.apply(this, options)
              remove(secured.connection, path)
              return secured
            }
          })
        }))
    })
  }

  it("of TCP: _connect", async () => {
    const components = await componentsOf()
    await refuses(
      "@libp2p/tcp",
      "_connect",
      () => Tcp.assertTcp(components, (given) => remove(tcp()(given), "_connect"))
    )
  })

  it("of TCP without a line in the log", async () => {
    const lines: Array<string> = []
    const log = Object.assign((format: string) => lines.push(format), LeanedOn.silentLogger)
    await Tcp.assertTcp(await componentsOf(), (given) => Object.assign(tcp()(given), { log }))
    assert.deepStrictEqual(lines, [])
  })

  for (const path of Object.keys(Tcp.listenerMembers)) {
    it(`of TCP's listeners: ${path}`, async () => {
      const components = await componentsOf()
      await refuses("@libp2p/tcp", path, () =>
        Tcp.assertTcp(components, (given) => {
          const transport = tcp()(given)
          const create = transport.createListener.bind(transport)
          return Object.assign(transport, {
            createListener: (options: CreateListenerOptions) => remove(create(options), path)
          })
        }))
    })
  }

  for (const path of Object.keys(Tcp.connectionMembers)) {
    it(`of TCP's connections: ${path}`, async () => {
      const components = await componentsOf()
      await refuses("@libp2p/tcp", path, () =>
        Tcp.assertTcp(components, (given) => {
          const transport = tcp()(given)
          const { dial } = transport
          return Object.assign(transport, {
            dial: function(this: typeof transport, address: Multiaddr, options: DialTransportOptions) {
              const upgradeOutbound = (connection: MultiaddrConnection) =>
                options.upgrader.upgradeOutbound(remove(connection, path), options)
              return dial.call(this, address, { ...options, upgrader: { ...options.upgrader, upgradeOutbound } })
            }
          })
        }))
    })
  }

  for (const path of ["_createConnection", ...Object.keys(Faults.connectionMembers)]) {
    it(`of libp2p's connections: ${path}`, async () => {
      const components = await componentsOf()
      const upgrader = Object.create(components.upgrader) as { _createConnection: (options: object) => object }
      const { _createConnection } = upgrader
      if (path === "_createConnection") remove(upgrader, path)
      else {
        upgrader._createConnection = function(options) {
          return remove(_createConnection.call(this, options), path)
        }
      }
      await refuses(
        "libp2p",
        path,
        () => Faults.assertConnection(Object.assign(Object.create(components), { upgrader }))
      )
    })
  }

  for (const path of Object.keys(Host.keepingMembers)) {
    it(`of libp2p's connection manager: ${path}`, async () => {
      const { connectionManager } = await componentsOf()
      await refuses(
        "libp2p",
        path,
        () => LeanedOn.assertMembers("libp2p", remove(connectionManager, path), Host.keepingMembers)
      )
    })
  }

  for (const path of Object.keys(Faults.addressMembers)) {
    it(`of libp2p's address manager: ${path}`, async () => {
      const { addressManager } = await componentsOf()
      await refuses(
        "libp2p",
        path,
        () => LeanedOn.assertMembers("libp2p", remove(addressManager, path), Faults.addressMembers)
      )
    })
  }

  it.effect("as the failure of the host's layer", () =>
    Effect.gen(function*() {
      const [connection] = multiaddrConnectionPair()
      const muxer = yamux({ enableKeepAlive: false })().createStreamMuxer(connection)
      const prototype = Object.getPrototypeOf(muxer) as { handleGoAway?: () => void }
      const { handleGoAway } = prototype
      delete prototype.handleGoAway
      const layer = Host.layer.pipe(Layer.provide([FileIdentity.layerEphemeral, NetworkConfig.layer({})]))
      const error = yield* Layer.build(layer).pipe(
        Effect.flip,
        Effect.ensuring(Effect.sync(() => Object.assign(prototype, { handleGoAway })))
      )
      assert.instanceOf(error, HostError)
      assert.include(
        error.message,
        `install exactly @chainsafe/libp2p-yamux@${LeanedOn.versions["@chainsafe/libp2p-yamux"]}`
      )
    }))
})

// internal ------------------------------------------------------------------------------------------------------------

function muxersWith(change: (muxer: Yamux.YamuxMuxer) => void): StreamMuxerFactory {
  return Yamux.changed(yamux({ enableKeepAlive: false }), [change])()
}
