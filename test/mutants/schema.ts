import type { Mutant } from "./Mutant.ts"

export const schemaMutants: ReadonlyArray<Mutant> = [
  {
    name: "a header of /codio/1.0.0 may have one byte more",
    file: "src/schema/CodioMessage.ts",
    text: "length > headerBytesMax",
    replacement: "length > headerBytesMax + 1",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a header may be nested one level deeper",
    file: "src/schema/CodioMessage.ts",
    text: "open.length > headerDepthMax",
    replacement: "open.length > headerDepthMax + 1",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a list that has ended keeps its level",
    file: "src/schema/CodioMessage.ts",
    text: "while (open.length > 0 && open[open.length - 1]! <= 0) open.pop()",
    replacement: "",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a list without a length keeps its level",
    file: "src/schema/CodioMessage.ts",
    text: "if (Type.equals(type, Type.break)) open.pop()",
    replacement: "if (Type.equals(type, Type.break)) open.length += 0",
    specs: ["test/schema/CodioMessage.test.ts"]
  }
]
