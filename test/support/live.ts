/**
 * Nodes on real sockets, for specs.
 */
import { Effect, Schedule } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Network, type NodeParts } from "../../src/Network.ts"
import type { NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { patience } from "./patience.ts"

export { record } from "./record.ts"

/** A node on loopback, without mDNS. */
export const makeNode = (options: NetworkConfigInput = {}, parts: NodeParts = {}) =>
  Network.make({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false, ...options }, parts)

/** Asks every 20 ms until the answer is yes; a defect after the time limit, {@link patience} by default. */
export const until = (
  question: Effect.Effect<boolean>,
  limit: `${number} seconds` = patience
): Effect.Effect<void> =>
  question.pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (answer) => answer }),
    Effect.timeout(limit),
    Effect.orDie,
    Effect.asVoid
  )

/**
 * A node in a process of its own, killed with the scope. `patience` is the time between its pings, and their timeout.
 */
export const spawnNode = (options: NetworkConfigInput = {}, patience?: string) =>
  Effect.acquireRelease(
    Effect.promise(async (): Promise<{ readonly process: ChildProcess; readonly address: string }> => {
      const program = fileURLToPath(new URL("./node.ts", import.meta.url))
      const process_ = spawn(process.execPath, [
        program,
        JSON.stringify(options),
        ...patience === undefined ? [] : [patience]
      ], {
        stdio: ["ignore", "pipe", "inherit"]
      })
      const [address] = await once(createInterface(process_.stdout), "line") as [string]
      return { process: process_, address }
    }),
    ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
  )

/** A TCP server that accepts and never speaks. `accepted` completes with its first connection. */
export const silentServer = Effect.acquireRelease(
  Effect.promise(async () => {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      // The socket is reset when the other side gives up.
      socket.on("error", () => {})
    })
    const accepted = once(server, "connection")
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const { port } = server.address() as AddressInfo
    const close = () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
    return { port, accepted: Effect.promise(() => accepted), close }
  }),
  ({ close }) => Effect.sync(close)
)

/**
 * A TCP proxy to an address, which can swallow everything: connections stay, and nothing passes any more, as when a
 * cable is pulled.
 */
export const proxy = (address: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const [, target, peer] = /tcp\/(\d+)(\/p2p\/.*)$/.exec(address)!
      const sockets = new Set<Socket>()
      let cut = false
      const server = createServer((near) => {
        if (cut) {
          sockets.add(near)
          near.on("error", () => {})
          return near.resume()
        }
        const far = connect(Number(target), "127.0.0.1")
        for (const socket of [near, far]) {
          sockets.add(socket)
          socket.on("error", () => {})
        }
        near.pipe(far)
        return far.pipe(near)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      const { port } = server.address() as AddressInfo
      const swallow = Effect.sync(() => {
        cut = true
        for (const socket of sockets) socket.unpipe().resume()
      })
      const close = () => {
        for (const socket of sockets) socket.destroy()
        server.close()
      }
      return { address: `/ip4/127.0.0.1/tcp/${port}${peer}`, swallow, close }
    }),
    ({ close }) => Effect.sync(close)
  )
