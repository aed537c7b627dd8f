/**
 * A process of nodes: `node bench/dht/nodes.ts '{"kind":"ours","count":19}'`, over IPC. Ends with the process that
 * started it.
 */
import type { Answers, Ask, BenchNode, FromNodes, Measured, NodesOptions } from "./BenchNode.ts"
import * as delay from "./delay.ts"
import * as tap from "./tap.ts"

const options: NodesOptions = JSON.parse(process.argv[2]!)
tap.install()
if (options.delayMillis !== undefined) delay.install(options.delayMillis)

const { make }: { make: (options: NodesOptions) => Promise<BenchNode> } = await import(`./${options.kind}.ts`)
const nodes: Array<BenchNode> = []
for (let i = 0; i < options.count; i++) nodes.push(await make(options))

const obey: { readonly [Op in Ask["op"]]: (ask: Extract<Ask, { op: Op }>) => Promise<Answers[Op]> } = {
  connect: async ({ address, node }) => {
    await nodes[node]!.connect(address)
    return null
  },
  explore: async ({ keys }) => {
    // A few at a time, so that no lookup waits so long for the others that it times out.
    const waiting = keys.values()
    await Promise.all(Array.from({ length: 4 }, async () => {
      for (const { key, node } of waiting) {
        // On a busy machine the lookup may time out, after it has heard of some nodes.
        await nodes[node]!.explore(Buffer.from(key, "hex")).catch(() => {})
      }
    }))
    return null
  },
  known: () => Promise.all(nodes.map((node) => node.known())),
  provide: ({ key, node, optimistic }) => provide(nodes[node]!, key, optimistic),
  join: async ({ address, key }) => {
    await nodes[0]!.connect(address)
    return provide(nodes[0]!, key, false)
  },
  republish: async ({ keys, seconds }) => {
    const provideMany = nodes[0]!.provideMany
    if (provideMany === undefined) throw new Error(`${options.kind} does not announce many keys`)
    const began = { millis: performance.now(), cpu: cpu(), sent: tap.soFar() }
    const copies = await provideMany(keys)
    const first = { millis: performance.now() - began.millis, cpu: cpu() - began.cpu, sent: tap.since(began.sent) }
    const before = { cpu: cpu(), sent: tap.soFar() }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
    return { copies, first, cpu: cpu() - before.cpu, sent: tap.since(before.sent) }
  },
  find: async ({ key, node }) => {
    let firstMillis: number | undefined
    const found = new Set<string>()
    const before = tap.soFar()
    const began = performance.now()
    await nodes[node]!.find(Buffer.from(key, "hex"), (peer) => {
      firstMillis ??= performance.now() - began
      found.add(peer)
    })
    const millis = performance.now() - began
    return { millis, found: found.size, sent: tap.since(before), ...(firstMillis === undefined ? {} : { firstMillis }) }
  },
  cpu: () => Promise.resolve(cpu())
}

process.on("message", ({ id, ...ask }: Ask & { readonly id: number }) => {
  const answer = obey[ask.op] as (ask: Ask) => Promise<Answers[Ask["op"]]>
  answer(ask).then(
    (value) => say({ id, value }),
    (error) => say({ id, problem: error instanceof Error ? error.stack ?? error.message : String(error) })
  )
})
process.on("disconnect", () => process.exit(0))
say({ ready: nodes.map(({ address, peer }) => ({ peer, address })) })

// internal ------------------------------------------------------------------------------------------------------------

function cpu(): number {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

async function provide(node: BenchNode, key: string, optimistic: boolean): Promise<Measured> {
  const before = tap.soFar()
  const began = performance.now()
  await node.provide(Buffer.from(key, "hex"), { optimistic })
  return { millis: performance.now() - began, sent: tap.since(before) }
}

function say(message: FromNodes): void {
  process.send?.(message)
}
