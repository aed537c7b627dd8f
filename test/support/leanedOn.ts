/**
 * Members of libp2p's packages taken away by hand, for specs about what this library leans on.
 */
import { assert } from "@effect/vitest"
import { createLibp2p, type Libp2pOptions } from "libp2p"
import type { Components } from "../../src/layers/libp2p/wire/Components.ts"
import * as LeanedOn from "../../src/layers/libp2p/wire/LeanedOn.ts"
import { HostError } from "../../src/schema/NetworkError.ts"

/** The object without a member; below a path the member's owner is copied, since it may be shared. */
export function remove<A extends object>(object: A, path: string): A {
  const [first, ...rest] = path.split(".") as [string, ...Array<string>]
  const value = rest.length === 0
    ? undefined
    : remove(Object.create((object as Record<string, object>)[first]!), rest.join("."))
  return Object.defineProperty(object, first, { value, writable: true, configurable: true })
}

/** The components of a node that is never started. */
export async function componentsOf(options: Libp2pOptions = {}): Promise<Components> {
  let components: Components | undefined
  await createLibp2p({
    ...options,
    start: false,
    services: {
      components: (given: Components) => {
        components = given
        return {}
      }
    }
  })
  return components!
}

/** Asserts that the start is refused for want of the member. */
export async function refuses(name: LeanedOn.Pinned, path: string, body: () => unknown): Promise<void> {
  const thrown = await Promise.resolve().then(body).then(() => undefined, (cause: unknown) => cause)
  assert.instanceOf(thrown, HostError)
  assert.include((thrown as HostError).message, `${name}@${LeanedOn.versions[name]}`)
  assert.include((thrown as HostError).message, `private member ${path} is undefined`)
}
