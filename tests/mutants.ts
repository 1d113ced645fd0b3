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
  "&&": ["||"],
  "||": ["&&"],
  "??": ["&&"],
  "+=": ["-="],
  "++": ["--"],
};

/** What a method becomes; "" leaves the call out. */
const METHODS: Record<string, string> = {
  startsWith: "endsWith",
  endsWith: "startsWith",
  some: "every",
  every: "some",
  min: "max",
  max: "min",
  toLowerCase: "toUpperCase",
  slice: "",
  subarray: "",
  filter: "",
  trim: "",
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
      if (node.body.length === 0) return js.slice(node.start, node.end);
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
  const textOf = ({ start, end }: AnyNode) => js.slice(start, end);
  const text = textOf(node);
  switch (node.type) {
    case "LogicalExpression":
    case "BinaryExpression":
    case "AssignmentExpression":
      if (node.operator === "+" && [node.left, node.right].some(isText)) return [];
      return (OPERATORS[node.operator] ?? [])
        .map((operator) => `(${textOf(node.left)}) ${operator} (${textOf(node.right)})`);
    case "UpdateExpression":
      return (OPERATORS[node.operator] ?? []).map((operator) =>
        text.replace(node.operator, operator)
      );
    case "UnaryExpression":
      return "!-".includes(node.operator) ? [textOf(node.argument)] : [];
    case "ChainExpression": // without one of its question marks
      return [...text.matchAll(/\?\.([[(])?/g)].map(({ 0: mark, 1: bracket = ".", index }) =>
        text.slice(0, index) + bracket + text.slice(index + mark.length)
      );
    case "CallExpression":
      return changesOfCall(js, node);
    case "ArrayExpression":
      return [node.elements.length > 0 ? "[]" : '["mutant"]'];
    case "ObjectExpression":
      return node.properties.length > 0 ? ["{}"] : [];
    case "TemplateLiteral":
      return ['""'];
    case "Literal":
      if (node.regex) return changesOfPattern(node.regex.pattern, node.regex.flags);
      if (typeof node.value === "boolean") return [String(!node.value)];
      return typeof node.value === "string" ? [node.value === "" ? '"mutant"' : '""'] : [];
    default:
      return [];
  }
}

function changesOfCall(js: string, { callee, end }: AnyNode & { type: "CallExpression" }) {
  if (callee.type !== "MemberExpression" || callee.property.type !== "Identifier") return [];
  const { start, end: nameEnd, name } = callee.property;
  if (!Object.hasOwn(METHODS, name)) return [];
  const object = js.slice(callee.start, start);
  const other = METHODS[name];
  return [other === "" ? object.replace(/\??\.\s*$/, "") : object + other + js.slice(nameEnd, end)];
}

/** A pattern without one of its anchors, quantifiers or flags, or with one class turned round. */
function changesOfPattern(pattern: string, flags: string): string[] {
  const tokens =
    /\\([dws])|\\.|(\[\^?)(?:\\.|[^\]\\])*\]|\((?:\?(?:[:=!]|<[=!]))?|([*+?]|\{\d+\}|[\^$])/g;
  const changes = flags.includes("i") ? [`/${pattern}/${flags.replace("i", "")}`] : [];
  for (const { 0: token, 1: letter, 2: bracket, 3: removable, index } of pattern.matchAll(tokens)) {
    const other = letter
      ? `\\${letter.toUpperCase()}`
      : bracket
      ? (bracket === "[" ? "[^" : "[") + token.slice(bracket.length)
      : removable && "";
    if (other === undefined) continue;
    changes.push(
      `/${pattern.slice(0, index)}${other}${pattern.slice(index + token.length)}/${flags}`,
    );
  }
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
