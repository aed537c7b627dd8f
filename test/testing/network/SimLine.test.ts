import { assert, it } from "@effect/vitest"
import type { PeerId } from "../../../src/schema/Peer.ts"
import { type Link, makeLine, type Switchboard } from "../../../src/testing/network/SimLine.ts"
import type { SimMachine } from "../../../src/testing/network/SimMachine.ts"

it("waits again for a message that its timer is a trace too early for", () => {
  let now = 0
  const timers: Array<{ readonly millis: number; readonly task: () => void }> = []
  const link: Link = {
    latencyMillis: 20,
    jitterMillis: 0,
    loss: 0,
    bytesPerMilli: Number.POSITIVE_INFINITY,
    busyUntil: 0
  }
  const board: Switchboard = {
    now: () => now,
    after: (millis, task) => {
      timers.push({ millis, task })
      return () => {}
    },
    chance: () => 0.5,
    link: () => link,
    machine: () => ({ receive: (task: () => void) => task() }) as unknown as SimMachine,
    isBlocked: () => false,
    deliver: (task) => task(),
    established: () => {},
    dropped: () => {}
  }
  const arrived: Array<number> = []
  const line = makeLine(board, "one" as PeerId, "other" as PeerId)
  line.far.onMessage = () => arrived.push(now)
  line.near.send({ _tag: "Ping", ping: 1 })
  // Rounded to a millionth, the message is due; as it stands, it is not.
  now = 20 - 0.0010000004
  timers[0]!.task()
  assert.deepStrictEqual(arrived, [])
  now += timers[1]!.millis
  timers[1]!.task()
  assert.deepStrictEqual(arrived, [now])
})
