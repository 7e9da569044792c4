"""Kinds of things that grow and live: a table that people can read and extend.

Contract: data only, one kind a row: its looks (`glyph:colour`, or a glyph alone where no colour
dominates), its name (`singular/plural=another name`), and a fact for each relation that
`bench.demo.kinds.RELATIONS` gives to its category; `-` for none.
"""

# sound | home | food
ANIMALS = """
🐶 dog/=puppy | woof | in a house with people | meat and bones
🐱 cat/=kitten | meow | in a house with people | fish and mice
🐭:grey mouse/mice | squeak | in a small hole | cheese and seeds
🐰 rabbit/=bunny | - | in a burrow | carrots and grass
🦊:orange fox/foxes | yip | in a den in the forest | mice and berries
🐻:brown bear/ | growl | in a cave in the forest | honey and fish
🐼 panda/ | - | in the mountains of China | bamboo
🐨:grey koala/ | - | in the trees of Australia | eucalyptus leaves
🐯:orange tiger/ | roar | in the jungle | meat
🦁 lion/ | roar | on the savanna | meat
🐮 cow/ | moo | on a farm | grass
🐷 pig/ | oink | in a sty | roots and vegetables
🐸:green frog/ | ribbit | near a pond | flies
🐵:brown monkey/ | ooh ooh | in the rainforest | bananas
🐧 penguin/ | - | on the ice of Antarctica | fish
🐔 hen/=chicken | cluck | in a coop | corn
🐓 rooster/ | cock-a-doodle-doo | in a farmyard | grains
🐥 chick/ | cheep | in a nest of straw | tiny seeds
🦆 duck/ | quack | on a lake | water plants
🦅 eagle/ | screech | on high cliffs | small animals
🦉:brown owl/ | hoot | in a hollow tree | mice
🦇:brown bat/ | - | in a dark cave | insects
🐺:grey wolf/wolves | howl | in a pack in the woods | meat
🦄 unicorn/ | - | in fairy tales | rainbows
🐝 bee/ | buzz | in a hive | nectar
🦋:orange butterfly/butterflies | - | in a flower meadow | nectar
🐌 snail/ | - | in its shell | leaves
🐞 ladybird/=ladybug | - | on green leaves | tiny insects
🐜 ant/ | - | in an ant hill | crumbs
🕷 spider/ | - | in a web | flies
🐢:green turtle/=tortoise | - | near warm water | leaves and grass
🐍:green snake/ | hiss | under warm stones | mice
🐙 octopus/octopuses | - | at the bottom of the sea | crabs
🦀 crab/ | - | on the beach | algae
🦞:red lobster/ | - | on the rocky sea floor | small fish
🐡 pufferfish/pufferfish | - | in warm seas | shells
🐟:blue fish/fish | - | in rivers | worms
🐬:blue dolphin/ | click | in the open sea | fish
🐳:blue whale/ | - | in the deep ocean | krill
🦈:grey shark/ | - | in the ocean | fish and seals
🐊:green crocodile/ | - | in muddy rivers | fish and birds
🦓 zebra/ | - | on the plains of Africa | grass
🐘:grey elephant/ | trumpet | in Africa and India | leaves and bark
🦏 rhino/=rhinoceros | - | on the grasslands | grass
🐪 camel/ | - | in the desert | dry plants
🦒 giraffe/ | - | on the savanna | leaves from high trees
🦘:brown kangaroo/ | - | in Australia | grass
🐎:brown horse/ | neigh | in a stable | hay
🐑 sheep/sheep | baa | on a green hill | grass
🐐 goat/ | bleat | in the mountains | herbs
🦌:brown deer/deer | - | at the edge of the forest | leaves and buds
🦃 turkey/ | gobble | on a farm | grains
🦜 parrot/ | squawk | in the tropics | nuts and fruit
🦢:white swan/ | - | on a quiet lake | water plants
🦩:pink flamingo/ | - | in shallow lagoons | shrimps
🦔:brown hedgehog/ | - | under a pile of leaves | beetles
🐿:brown squirrel/ | - | in a tree | nuts
🦝 raccoon/ | - | in hollow trees | almost anything
🦖:green dinosaur/ | roar | millions of years ago | meat
"""

# where it grows | what it is like
PLANTS = """
🌵:green cactus/cactuses | in the desert | it stores water and has spines
🌲:green fir tree/ | in cold forests | it stays green in winter
🌴 palm tree/ | on warm beaches | it carries coconuts
🌳:green oak tree/ | in parks and forests | it grows acorns
🍁 maple leaf/maple leaves | on trees in Canada | it turns red in autumn
🍀:green clover/ | in a meadow | it brings luck with four leaves
🌹:red rose/ | in a garden | it smells sweet and has thorns
🌻:yellow sunflower/ | in sunny fields | it turns towards the sun
🌷:pink tulip/ | in Holland | it flowers in spring
🌼:yellow daisy/daisies | on a lawn | it opens in the morning
🌸:pink cherry blossom/ | on cherry trees in Japan | it lasts only a few days
🍄 mushroom/ | in damp woods | it needs no sunlight
"""

# where it grows | how it tastes
FRUIT = """
🍎:red 🍏:green apple/ | on an apple tree | sweet and crisp
🍐:green pear/ | on a pear tree | sweet and juicy
🍊:orange tangerine/=mandarin | on trees in Spain | sweet and fresh
🍋:yellow lemon/ | on lemon trees in Italy | very sour
🍌:yellow banana/ | on tall plants in the tropics | sweet and soft
🍉 watermelon/ | on the ground in hot countries | watery and sweet
🍇:purple bunch of grapes/bunches of grapes=grapes | in a vineyard | sweet with a little acid
🍓:red strawberry/strawberries | close to the ground | like summer
🍒:red cherry/cherries=pair of cherries | on a cherry tree | sweet with a hard stone
🍑 peach/peaches | on trees in warm valleys | soft and sweet
🍍 pineapple/ | on the ground in the tropics | sweet and tangy
🥝 kiwi/ | on climbing vines | fresh and tart
🍅:red tomato/tomatoes | in a greenhouse | mild and fresh
🥕:orange carrot/ | under the ground | crunchy and sweet
🌽 corn cob/=corn | in wide fields | sweet and buttery
🥦:green head of broccoli/heads of broccoli=broccoli | in a vegetable patch | green and earthy
🍆:purple aubergine/=eggplant | in warm gardens | mild and smoky
🥑 avocado/ | on trees in Mexico | rich and buttery
🌶:red chilli/=chilli pepper=pepper | on small bushes | very hot
🧅 onion/ | under the soil | sharp
🥜 peanut/ | in pods under the ground | nutty
"""

# when you see it | what to do then
WEATHER = """
🌞:yellow sun/ | on a bright summer day | put on sun cream
🌈 rainbow/ | when the sun shines through rain | look for its end
⛈ thunderstorm/=thundercloud | on a hot, heavy evening | stay inside
❄:blue snowflake/ | on a freezing day | wear warm gloves
⛄ snowman/snowmen | after a night of snow | build another one
🌪 tornado/tornadoes | over flat plains in a storm | go to the cellar
🌙:yellow moon/=crescent moon | on a clear night | go to bed
💧:blue raindrop/=drop | when it starts to rain | open an umbrella
⚡:yellow lightning bolt/=lightning | during a storm | keep away from trees
🔥 fire/=flame | at a camp in the evening | keep a safe distance
"""
