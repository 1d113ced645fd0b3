/**
 * Mutants of a module: small changes, each of which a test should notice. All of them are written into
 * one module, in which `$m(id)` says whether a mutant is the active one, so that it is loaded once.
 */

import { stripTypeScriptTypes } from "node:module";
import { type AnyNode, parse } from "npm:acorn@8.19.0";

export interface Mutant {
  id: number;
  file: string;
  line: number;
  before: string;
  after: string;
}

/** What an operator becomes. */
const OPERATORS: Record<string, string[]> = {
  "<": ["<=", ">="],
  "<=": ["<", ">"],
  ">": [">=", "<="],
  ">=": [">", "<"],
  "===": ["!=="],
  "!==": ["==="],
  "+": ["-"],
  "-": ["+"],
  "*": ["/"],
  "/": ["*"],
  "%": ["*"],
  "**": ["*"],
  "&": ["|"],
  "|": ["&"],
  "<<": [">>"],
  ">>": ["<<"],
  "&&": ["||"],
  "||": ["&&"],
  "??": ["&&"],
  "+=": ["-="],
  "-=": ["+="],
  "??=": ["&&="],
  "||=": ["&&="],
  "|=": ["&="],
  "++": ["--"],
  "--": ["++"],
};

/** What a method becomes; without one, the call is left out. */
const METHODS: Record<string, string | undefined> = {
  startsWith: "endsWith",
  endsWith: "startsWith",
  some: "every",
  every: "some",
  min: "max",
  max: "min",
  toUpperCase: "toLowerCase",
  toLowerCase: "toUpperCase",
  slice: undefined,
  subarray: undefined,
  filter: undefined,
  sort: undefined,
  trim: undefined,
  trimStart: undefined,
  trimEnd: undefined,
};

/** How a parent uses a node: it decides what else may stand there, or that nothing may. */
type Role = "value" | "condition" | "loop condition" | "result" | "fixed";

/** The module in JavaScript with all its mutants, which are numbered from `firstId` on. */
export function mutate(
  file: string,
  source: string,
  firstId = 0,
): { code: string; mutants: Mutant[] } {
  const js = stripTypeScriptTypes(source); // spaces take the place of types
  const mutants: Mutant[] = [];

  const add = (node: AnyNode, after: string): string => {
    const line = source.slice(0, node.start).split("\n").length;
    const id = firstId + mutants.length;
    mutants.push({ id, file, line, before: source.slice(node.start, node.end), after });
    return `$m(${id})`;
  };

  const write = (node: AnyNode, role: Role): string => {
    if (node.type === "BlockStatement") {
      if (node.body.length === 0) return textOf(js, node);
      const isActive = add(node, "{}");
      return `{ if (!${isActive}) ${writeInside(node, role)} }`;
    }
    const changes = role === "fixed"
      ? []
      : [...new Set(changesOf(js, node, role))].filter(isExpression);
    const choices = changes.map((after) => `${add(node, after)} ? (${after}) : `);
    const written = writeInside(node, role);
    return choices.length === 0 ? written : `(${choices.join("")}(${written}))`;
  };

  const writeInside = (node: AnyNode, role: Role): string => {
    let [text, end] = ["", node.start];
    for (const [child, childRole] of childrenOf(node, role)) {
      if (child.start < end) continue; // `{ a }` has `a` as key and as value
      text += js.slice(end, child.start) + write(child, childRole);
      end = child.end;
    }
    return text + js.slice(end, node.end);
  };

  const program = parse(js, { ecmaVersion: "latest", sourceType: "module" });
  return { code: writeInside(program, "value"), mutants };
}

/** The nodes in a node, in the order of the text, with their roles. */
function childrenOf(node: AnyNode, role: Role): [AnyNode, Role][] {
  if (/^(Import|ExportAll)/.test(node.type)) return [];
  const fields = Object.entries(node).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value])
      .filter((child): child is AnyNode => typeof child?.type === "string")
      .map((child): [AnyNode, Role] => [child, roleOf(node, role, name)])
  );
  return fields.sort(([a], [b]) => a.start - b.start);
}

function roleOf(node: AnyNode, role: Role, field: string): Role {
  if (field === "test" && node.type !== "SwitchCase") {
    return /^(If|Cond)/.test(node.type) ? "condition" : "loop condition";
  }
  if (node.type === "ArrowFunctionExpression" && field === "body") return "result";
  const isName = ["key", "property", "label"].includes(field) &&
    !("computed" in node && node.computed);
  // `a?.b.c` ends as a whole where there is no `a`; a method needs its object.
  const isLink = node.type === "ChainExpression" ||
    role === "fixed" && /^(object|callee)$/.test(field);
  const isText = "directive" in node || ["quasi", "source", "left"].includes(field) &&
      !["BinaryExpression", "LogicalExpression"].includes(node.type);
  return isName || isLink || isText ? "fixed" : "value";
}

/** What may stand in a node's place. */
function changesOf(js: string, node: AnyNode, role: Role): string[] {
  const changes = changesOfNode(js, node);
  if (role === "result") changes.push("undefined");
  if (role === "condition") changes.push("true");
  if (/condition/.test(role)) changes.push("false");
  return changes;
}

function changesOfNode(js: string, node: AnyNode): string[] {
  switch (node.type) {
    case "BinaryExpression":
    case "LogicalExpression":
    case "AssignmentExpression": {
      if (node.operator === "+" && (isText(node.left) || isText(node.right))) return [];
      const at = js.indexOf(node.operator, node.left.end);
      const [left, right] = [
        js.slice(node.start, at),
        js.slice(at + node.operator.length, node.end),
      ];
      return (OPERATORS[node.operator] ?? []).map((operator) =>
        node.type === "LogicalExpression" // `??` mixes with no other operator
          ? `(${left}) ${operator} (${right})`
          : left + operator + right
      );
    }
    case "UpdateExpression":
      return [textOf(js, node).replace(node.operator, OPERATORS[node.operator][0])];
    case "UnaryExpression":
      return node.operator === "!" || node.operator === "-" ? [textOf(js, node.argument)] : [];
    case "ChainExpression":
      return [...textOf(js, node).matchAll(/\?\.(?=([[(])?)/g)].map(({ index, 1: bracket }) =>
        textOf(js, node).slice(0, index) + (bracket ? "" : ".") + textOf(js, node).slice(index + 2)
      );
    case "CallExpression":
      return changesOfCall(js, node);
    case "ArrayExpression":
      return [node.elements.length > 0 ? "[]" : '["mutant"]'];
    case "ObjectExpression":
      return node.properties.length > 0 ? ["{}"] : [];
    case "TemplateLiteral":
      return node.quasis.length > 1 || node.quasis[0].value.raw !== "" ? ['""'] : [];
    case "Literal":
      if (node.regex) return changesOfPattern(node.regex.pattern, node.regex.flags);
      if (typeof node.value === "boolean") return [String(!node.value)];
      return typeof node.value === "string" ? [node.value === "" ? '"mutant"' : '""'] : [];
    default:
      return [];
  }
}

function changesOfCall(
  js: string,
  { callee, end }: AnyNode & { type: "CallExpression" },
): string[] {
  if (callee.type !== "MemberExpression" || callee.property.type !== "Identifier") return [];
  const { property } = callee;
  if (!Object.hasOwn(METHODS, property.name)) return [];
  const other = METHODS[property.name];
  if (other === undefined) return [js.slice(callee.start, property.start).replace(/\??\.\s*$/, "")];
  return [js.slice(callee.start, property.start) + other + js.slice(property.end, end)];
}

/** A pattern without one of its anchors, quantifiers or flags, or with one class turned round. */
function changesOfPattern(pattern: string, flags: string): string[] {
  const tokens =
    /\\[dDwWsSbB]|\\.|\[(?:\\.|[^\]\\])*\]|\((?:\?(?:[:=!]|<[=!]|<\w+>))?|[*+?]|\{\d+(?:,\d*)?\}|[\^$]/g;
  const changes: string[] = [];
  for (const { 0: token, index } of pattern.matchAll(tokens)) {
    const other = /^[*+?{^$]/.test(token)
      ? ""
      : token.startsWith("[")
      ? (token[1] === "^" ? `[${token.slice(2)}` : `[^${token.slice(1)}`)
      : /^\\[a-z]$/i.test(token)
      ? token === token.toLowerCase() ? token.toUpperCase() : token.toLowerCase()
      : undefined;
    if (other === undefined || (token.length === 2 && !/\\[dwsb]/i.test(token))) continue;
    changes.push(
      `/${pattern.slice(0, index) + other + pattern.slice(index + token.length)}/${flags}`,
    );
  }
  if (flags.includes("i")) changes.push(`/${pattern}/${flags.replace("i", "")}`);
  return changes;
}

function isExpression(text: string): boolean {
  try {
    parse(`(${text})`, { ecmaVersion: "latest", allowAwaitOutsideFunction: true });
    return true;
  } catch {
    return false; // a pattern that means nothing
  }
}

function isText(node: AnyNode): boolean {
  return node.type === "TemplateLiteral" ||
    (node.type === "Literal" && typeof node.value === "string");
}

function textOf(js: string, { start, end }: AnyNode): string {
  return js.slice(start, end);
}
