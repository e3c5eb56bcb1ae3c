"""A node that is a script: it runs as the code of a node in a graph, and by hand:

python node_script.py input.json 12345678-1234-5678-1234-567812345678 http://127.0.0.1:10500 greeter
"""

from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)


async def main():
    inputs = node.get_inputs()
    api_key = "{{{secret::API_KEY}}}"  # looked up at run time, never pasted in
    await logger.info(f"greeting {inputs['name']} with {api_key}")
    greeting = f"hello {inputs['name']}"
    await logger.log_with_context("INFO", "done", {"letters": len(greeting)})
    return ["shout"], {"greeting": greeting}, "greeted"


node.register_main(main)
node.run()
