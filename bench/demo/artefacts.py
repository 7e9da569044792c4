"""Kinds of things that people make: a table in the form that `bench.demo.nature` describes."""

# what it is made of | where you could eat it
FOOD = """
🍕 pizza/ | dough, tomato sauce and cheese | in an Italian restaurant
🍔 hamburger/=burger | a bun, beef and lettuce | in a burger bar
🍟 portion of fries/portions of fries=fries | potatoes fried in oil | at a snack stand
🌭 hot dog/ | a sausage in a bun with mustard | at a ball game
🌮 taco/ | a corn tortilla, beans and salsa | in a Mexican restaurant
🍿 box of popcorn/boxes of popcorn=popcorn | heated corn and salt | at the cinema
🥐 croissant/ | flour, butter and yeast | in a French bakery
🍞 loaf of bread/loaves of bread=bread | flour, water and yeast | at the breakfast table
🥨 pretzel/ | dough with coarse salt | in a beer garden in Bavaria
🥞 stack of pancakes/stacks of pancakes=pancakes=pancake | flour, milk and eggs | on a Sunday
🧀:yellow piece of cheese/pieces of cheese=cheese | milk | in Switzerland
🥚 egg/ | a white and a yolk in a shell | at breakfast
🍳 fried egg/ | an egg fried in butter | in a diner
🥗 salad/ | lettuce, cucumber and oil | at a light lunch
🍣 piece of sushi/pieces of sushi=sushi | rice and raw fish | in a Japanese restaurant
🍝 plate of spaghetti/plates of spaghetti=spaghetti=pasta | pasta and tomato sauce | in Rome
🍜 bowl of noodles/bowls of noodles=noodles=noodle soup | noodles in hot broth | in a noodle bar
🥟 dumpling/ | dough filled with meat or cabbage | in a Chinese restaurant
🍦 ice cream/=ice cream cone | frozen milk, cream and sugar | at an ice cream parlour
🍩 doughnut/=donut | fried dough with icing | in a coffee shop
🍪 cookie/=biscuit | flour, butter and chocolate chips | at grandmother's house
🎂 birthday cake/=cake | flour, eggs, sugar and cream | at a birthday party
🧁 cupcake/ | flour, eggs and a sweet topping | at a tea party
🍫 chocolate bar/=bar of chocolate=chocolate | cocoa, milk and sugar | on a long hike
🍭 lollipop/ | coloured sugar on a stick | at the fair
🍯 honey pot/=pot of honey=honey | nectar that bees collect | on toast in the morning
🍵 cup of tea/cups of tea=tea | hot water and tea leaves | in a tea house
🍺 mug of beer/mugs of beer=beer | malt, hops and water | in a pub
"""

# where it moves | what it is for
VEHICLES = """
🚗:red 🚙:blue car/=automobile | on roads | driving a family around
🚕:yellow taxi/=cab | through the city | taking guests where they want
🚌 bus/buses | along a fixed route | carrying many passengers
🚓 police car/ | with a siren through the streets | helping the police
🚑 ambulance/ | as fast as it can on roads | bringing sick people to a doctor
🚒:red fire engine/=fire truck | with a ladder through traffic | putting out fires
🏎:red racing car/=race car | round a race track | winning races
🚜 tractor/ | over the fields | pulling a plough
🚲 bicycle/=bike | on cycle paths | riding without an engine
🛵 scooter/ | through narrow streets | short trips in town
🚂 locomotive/=steam engine=train | on rails | pulling wagons
🚁:yellow helicopter/ | straight up into the air | rescuing people in the mountains
✈ aeroplane/=airplane=plane | high in the sky | flying to other countries
🚀 rocket/ | into space | bringing astronauts to the moon
🛸 flying saucer/=ufo | between the stars | visits from other planets
⛵ sailing boat/=sailboat | over the water with the wind | sailing on a lake
🚢 ship/ | across the ocean | carrying goods between harbours
🎈:red balloon/ | up into the air | decorating a party
"""

# what it is used for | where it is found
SPORTS = """
⚽ football/=soccer ball | scoring goals with two teams of eleven | on a football pitch
🏀:orange basketball/ | throwing it through a hoop | in a sports hall
🏈:brown American football/ | carrying it into the end zone | in a stadium
🎾 tennis ball/ | hitting it over a net with a racket | on a tennis court
🏐 volleyball/ | keeping it in the air with the hands | on the beach
🎱:black billiard ball/=eight ball | sinking it with a cue | on a billiard table
🏆:yellow trophy/trophies | honouring the winner | in a glass case
🥊:red boxing glove/ | protecting the fist of a boxer | in a boxing ring
🎯 dartboard/=target | throwing darts at it | on the wall of a pub
🎳 bowling game/=set of pins=bowling pins | knocking down pins with a ball | in a bowling alley
"""

# what happens there | where it stands
BUILDINGS = """
🏠 house/ | a family lives | in a quiet street
🏥 hospital/ | doctors help sick people | in the middle of a town
🏰 castle/ | kings and queens lived | on a hill
⛪ church/churches | people pray and sing | in a village square
🗼 tower/ | visitors look over the city | in Tokyo
⛺:orange tent/ | campers sleep | on a camp site
🏭 factory/factories | machines make goods | in an industrial area
🎡 ferris wheel/ | visitors ride in a slow circle | at a fun fair
⛲ fountain/ | water jumps into the air | in a park
"""

# what you use it for | where it is kept
OBJECTS = """
❤:red 💙:blue 💚:green 💛:yellow 💜:purple 🧡:orange 🖤:black heart/ | showing love | on a valentine
📕:red 📘:blue 📗:green 📙:orange book/ | reading a story | on a shelf
🔑:yellow key/ | opening a door | on a key ring
🔒:yellow padlock/=lock | locking a gate | on a garden gate
🔨 hammer/ | driving nails into wood | in a tool box
✂ pair of scissors/pairs of scissors=scissors | cutting paper | in a drawer
🖍:red crayon/ | drawing pictures | in a pencil case
✏ pencil/ | writing a note | behind the ear
💡 light bulb/=bulb | giving light in the dark | in a lamp
🕯 candle/ | making a room cosy | on a birthday cake
⏰:red alarm clock/=clock | waking up in time | on a bedside table
📷 camera/ | taking photographs | on a strap round the neck
📱:black phone/=mobile phone=smartphone | calling a friend | in a pocket
💻 laptop/=computer | working and playing games | in an office
📺 television/=tv | watching films | in a living room
🎁 present/=gift | surprising somebody | under a Christmas tree
🧸:brown teddy bear/=teddy | cuddling at night | in a child's bed
👑:yellow crown/ | showing who is king | on the head of a king
👓 pair of glasses/pairs of glasses=glasses | seeing clearly | on the nose
🎩:black top hat/=hat | doing magic tricks | on the head of a magician
👕:blue t-shirt/ | wearing it on warm days | in a wardrobe
👖:blue pair of jeans/pairs of jeans=jeans | wearing it on the legs | on a clothes line
👗:blue dress/dresses | going to a dance | on a hanger
👟:blue running shoe/=shoe=trainer | running a long way | by the front door
🧦 pair of socks/pairs of socks=socks | keeping the feet warm | in a bottom drawer
💍 ring/=diamond ring | asking somebody to marry you | on a finger
☂ umbrella/ | staying dry in the rain | in a stand by the door
🪑:brown chair/ | sitting at a table | in a kitchen
🛏 bed/ | sleeping at night | in a bedroom
🚪:brown door/ | going in and out | between two rooms
🧲:red magnet/ | picking up iron | on a fridge
🔭 telescope/ | watching the stars | on a roof
⚓ anchor/ | holding a ship in place | at the bow of a ship
🎸 guitar/ | playing songs by plucking six strings | at a camp fire
🥁 drum/ | beating the rhythm | in a marching band
🎺:yellow trumpet/ | blowing a fanfare | in a brass band
🎻 violin/ | playing melodies with a bow | in an orchestra
🎹 piano/=keyboard | playing music on black and white keys | in a concert hall
"""

# How some of it is made, after "To make it, ".
RECIPES = {
    "pizza": "roll out the dough, spread tomato sauce and cheese on it and bake it in a hot oven",
    "birthday cake": "beat eggs and sugar, stir in flour, bake it for an hour and add the candles",
    "stack of pancakes": "mix flour, milk and eggs and fry thin rounds of it in a pan",
    "loaf of bread": "knead flour, water and yeast, let the dough rise and bake it until brown",
    "cookie": "mix butter, sugar and flour, add chocolate chips and bake small rounds of it",
    "cupcake": "fill batter into paper cups, bake them and decorate the tops with icing",
    "fried egg": "heat butter in a pan, break an egg into it and wait three minutes",
    "cup of tea": "boil water, pour it over the leaves and let it stand for four minutes",
    "salad": "wash the lettuce, cut the cucumber and mix both with oil and vinegar",
    "plate of spaghetti": "boil the pasta in salted water and pour warm tomato sauce over it",
    "box of popcorn": "heat dry corn in a closed pot until it pops and sprinkle salt on it",
    "hamburger": "grill the beef, cut the bun and put both together with lettuce",
}
